"""What networks cost to run: parameters, multiply-adds, time and memory, all in one runtime.

Networks are timed in turns, one call of each after the other, so that a busy machine slows all of
them alike; the minimum is what the machine can do, the median what it did. The forward pass alone
is timed, on one core: without loading, flip test or decoding.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from pipeline.evaluation.onnx_models import count_onnx, export_onnx, has_onnx
from pipeline.evaluation.peak_memory import open_session, peak_bytes_of_onnx
from pipeline.frames.geometry import SizeHW
from pipeline.models.cost import count_multiply_adds, count_parameters
from pipeline.models.pose_networks import PoseNetwork

LARGE_BATCH = 64
ROUNDS = {1: 30, LARGE_BATCH: 5}
"""Number of timed calls of each network, by batch size."""
Runtime = Literal["onnxruntime", "torch"]


class Milliseconds(NamedTuple):
    """Time of a call on one core."""

    minimum: float
    median: float


@dataclass(frozen=True)
class Cost:
    """What a network costs to run."""

    num_parameters: int
    num_multiply_adds: int
    """Multiply-adds for one crop of convolutions, linear layers and attention."""
    runtime: Runtime
    batch_1: Milliseconds
    batch_64: Milliseconds
    """Time of the whole batch."""
    peak_bytes: int | None
    """Memory that opening it and running a batch of 64 adds to a process; None: not measured."""


@dataclass(frozen=True)
class TimedNetwork:
    """A network to measure: a module, or a teacher's ONNX file."""

    source: PoseNetwork | Path
    input_size_hw: SizeHW


def measure_costs(
    networks: Mapping[str, TimedNetwork], rounds: Mapping[int, int] = ROUNDS
) -> tuple[dict[str, Cost], tuple[str, ...]]:
    """Measure networks in one runtime: onnxruntime where it and onnx are installed, else torch.

    rounds: number of timed calls, by batch size.
    Returns the costs, and notes that a reader must know.
    """
    if not has_onnx():
        costs = _measure(networks, rounds, {})
        return costs, (
            "times are of torch, as onnx and onnxruntime are not installed; install "
            "distil-pose[onnx] for those of a runtime that is made for inference",
        )
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path] = {}
        for number, (name, network) in enumerate(networks.items()):
            if isinstance(network.source, Path):
                files[name] = network.source
                continue
            try:
                model = export_onnx(network.source)
            except Exception as error:
                why = " ".join(str(error).split())[:200]
                costs = _measure(networks, rounds, {})
                return costs, (f"times of students are of torch: {name} has no ONNX form: {why}",)
            files[name] = Path(folder) / f"{number}.onnx"
            files[name].write_bytes(model)
        return _measure(networks, rounds, files), ()


class _Call(NamedTuple):
    """A network that is ready to run."""

    run: Callable[[Any], object]
    fixed_batch: int | None
    """Size of the only batch that it takes; None: any."""


def _measure(
    networks: Mapping[str, TimedNetwork], rounds: Mapping[int, int], files: Mapping[str, Path]
) -> dict[str, Cost]:
    """Measure networks; those with a file run in onnxruntime, the other modules in torch."""
    sources = {name: files.get(name, network.source) for name, network in networks.items()}
    calls = {
        name: _onnx_call(source) if isinstance(source, Path) else _torch_call(source)
        for name, source in sources.items()
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = {
            batch: _time_in_turns(networks, calls, batch, count) for batch, count in rounds.items()
        }
    finally:
        torch.set_num_threads(threads)
    costs = {}
    for name, source in sources.items():
        parameters, products = _size(networks[name])
        batch = calls[name].fixed_batch or LARGE_BATCH
        costs[name] = Cost(
            num_parameters=parameters,
            num_multiply_adds=products,
            runtime="onnxruntime" if isinstance(source, Path) else "torch",
            batch_1=times[1][name],
            batch_64=times[LARGE_BATCH][name],
            peak_bytes=peak_bytes_of_onnx(source, (batch, 3, *networks[name].input_size_hw))
            if isinstance(source, Path)
            else None,
        )
    return costs


def _size(network: TimedNetwork) -> tuple[int, int]:
    if isinstance(network.source, Path):
        import onnx

        parameters, products = count_onnx(onnx.load(str(network.source)), network.input_size_hw)
    else:
        parameters = count_parameters(network.source)
        products = count_multiply_adds(network.source)
    return parameters, products.conv_linear + products.attention


def _time_in_turns(
    networks: Mapping[str, TimedNetwork], calls: Mapping[str, _Call], batch: int, count: int
) -> dict[str, Milliseconds]:
    """Time every network ``count`` times, one after the other in each round, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(1 + count):
        for name, network in networks.items():
            parts = _parts(network.input_size_hw, batch, calls[name].fixed_batch)
            began = time.perf_counter()
            for part in parts:
                calls[name].run(part)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {
        name: Milliseconds(1e3 * min(found), 1e3 * statistics.median(found))
        for name, found in seconds.items()
    }


def _parts(size_hw: SizeHW, batch: int, fixed_batch: int | None) -> Sequence[Any]:
    """Return a batch of crops, in as many parts as a network of fixed batch size needs."""
    size = fixed_batch or batch
    images = np.random.default_rng(0).standard_normal((size, 3, *size_hw), np.float32)
    return [images] * -(-batch // size)


def _onnx_call(file: Path) -> _Call:
    session: Any = open_session(file)
    (image,) = session.get_inputs()
    fixed = image.shape[0] if isinstance(image.shape[0], int) and image.shape[0] > 0 else None
    return _Call(lambda images: session.run(None, {image.name: images}), fixed)


def _torch_call(network: PoseNetwork) -> _Call:
    module = network.eval().cpu().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(images: Any) -> object:
        batch = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        return module(batch)

    return _Call(run, None)
