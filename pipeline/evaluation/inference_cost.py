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

from pipeline.evaluation.onnx_models import count_onnx, export_onnx
from pipeline.evaluation.peak_memory import peak_bytes_of_onnx
from pipeline.export.runtime import crops_of_model, fixed_batch_size, has_onnx, open_session
from pipeline.frames.geometry import SizeHW
from pipeline.models.cost import count_multiply_adds, count_parameters
from pipeline.models.pose_networks import PoseNetwork
from pipeline.wording import one_line

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
    """A network to measure: a module, or the ONNX file of a teacher or of a student."""

    source: PoseNetwork | Path
    input_size_hw: SizeHW
    size: tuple[int, int] | None = None
    """Parameters and multiply-adds for one crop; None: they are counted."""


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
            "times are of torch, as onnx and onnxruntime are not installed; install the extra "
            "onnx (uv sync --extra onnx) for those of a runtime that is made for inference",
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
                why = one_line(error)
                costs = _measure(networks, rounds, {})
                return costs, (f"times of students are of torch: {name} has no ONNX form: {why}",)
            files[name] = Path(folder) / f"{number}.onnx"
            files[name].write_bytes(model)
        return _measure(networks, rounds, files), ()


def time_files(
    files: Mapping[str, Path], input_size_hw: SizeHW, rounds: Mapping[int, int] = ROUNDS
) -> dict[str, dict[int, Milliseconds]]:
    """Time ONNX files that take crops of one size, in turns, on one core: name -> batch -> time."""
    networks = {name: TimedNetwork(file, input_size_hw) for name, file in files.items()}
    calls = {name: _onnx_call(file, input_size_hw) for name, file in files.items()}
    times = {batch: _time_in_turns(networks, calls, batch, n) for batch, n in rounds.items()}
    return {name: {batch: found[name] for batch, found in times.items()} for name in files}


class _Call(NamedTuple):
    """A network that is ready to run."""

    run: Callable[[Any], object]
    crops: Callable[[int], Any]
    """Returns a batch of crops of this size, as the network takes them."""
    fixed_batch: int | None = None
    """Size of the only batch that it takes; None: any."""


def _measure(
    networks: Mapping[str, TimedNetwork], rounds: Mapping[int, int], files: Mapping[str, Path]
) -> dict[str, Cost]:
    """Measure networks; those with a file run in onnxruntime, the other modules in torch."""
    sources = {name: files.get(name, network.source) for name, network in networks.items()}
    calls = {
        name: _onnx_call(source, networks[name].input_size_hw)
        if isinstance(source, Path)
        else _torch_call(source)
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
            peak_bytes=peak_bytes_of_onnx(source, batch, networks[name].input_size_hw)
            if isinstance(source, Path)
            else None,
        )
    return costs


def _size(network: TimedNetwork) -> tuple[int, int]:
    if network.size is not None:
        return network.size
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
        for name in networks:
            parts = _parts(calls[name], batch)
            began = time.perf_counter()
            for part in parts:
                calls[name].run(part)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {
        name: Milliseconds(1e3 * min(found), 1e3 * statistics.median(found))
        for name, found in seconds.items()
    }


def _parts(call: _Call, batch: int) -> Sequence[Any]:
    """Return a batch of crops, in as many parts as a network of fixed batch size needs."""
    size = call.fixed_batch or batch
    return [call.crops(size)] * -(-batch // size)


def _onnx_call(file: Path, input_size_hw: SizeHW) -> _Call:
    session = open_session(file)
    name = crops_of_model(session, 1, input_size_hw).name
    return _Call(
        run=lambda images: session.run(None, {name: images}),
        crops=lambda batch: crops_of_model(session, batch, input_size_hw).noise,
        fixed_batch=fixed_batch_size(session),
    )


def _torch_call(network: PoseNetwork) -> _Call:
    module = network.eval().cpu().to(memory_format=torch.channels_last)
    random = np.random.default_rng(0)

    @torch.inference_mode()
    def run(images: Any) -> object:
        batch = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        return module(batch)

    def crops(batch: int) -> Any:
        return random.standard_normal((batch, 3, *network.input_size_hw), np.float32)

    return _Call(run, crops)
