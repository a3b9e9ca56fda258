"""What a training needs, measured on a copy of it before its first step: memory and time.

A few views are learned from by a copy of the network, whose tensors are counted while they live;
the training itself, its random state included, stays as it was.
"""

import copy
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset

from pipeline.coco.people import People
from pipeline.errors import ConfigError
from pipeline.machine import free_memory
from pipeline.models.cost import count_parameters
from pipeline.training.batch import TrainingBatch
from pipeline.training.distributed import Processes
from pipeline.training.training_setup import Training
from pipeline.training.training_step import BatchLoss
from pipeline.training.view_order import BlockOrder, ViewBatch, ViewOrder
from pipeline.wording import counted

BESIDE_TENSORS = 1.1
"""Memory that a step takes, relative to its tensors: kernels need space to work in. With
distilpose-s on a CPU the peak grew by 1.10 of the tensors of each view."""
ALLOCATOR_BYTES = 64 << 20
"""Memory that an allocator keeps back as it cannot join it, as with distilpose-xs on a CPU."""
WORKER_BYTES = 32 << 20
"""Memory of a loader worker beside its images: a forked one shares most with the training."""
PREFETCHED_BATCHES = 4
TRIAL_SECONDS = 1.0


@dataclass(frozen=True)
class LoadedViews:
    """Views of a training, and how they are loaded."""

    dataset: Dataset[TrainingBatch]
    order: ViewOrder | BlockOrder
    num_workers: int
    cache_bytes: int
    """Largest size of the decoded images that a worker, or this process without one, keeps."""

    def load(self, size: int) -> TrainingBatch:
        """Load views of the first batch, as often as needed to make ``size`` of them."""
        first = next(iter(self.order))
        rows = np.resize(np.arange(self.order.batch_size), size)
        return self.dataset[ViewBatch(first.instances[rows], first.views[rows])]


@dataclass(frozen=True)
class StepCost:
    """What one view costs in a training step."""

    step_bytes: int
    """Size of the tensors of forward and backward pass."""
    batch_bytes: int
    """Size of the view and its targets."""
    step_seconds: float
    load_seconds: float


def image_cache_bytes(people: People, instances: Any, limit_mib: int) -> int:
    """Return the size of the cache of the decoded images of these people, (n,) rows."""
    used = np.unique(people.image_index[instances])
    sizes = people.image_size_hw[used].astype(np.int64).prod(axis=1) * 3
    return min(limit_mib << 20, int(sizes.sum()))


def measure_step(training: Training, load: Callable[[int], TrainingBatch]) -> StepCost:
    """Measure one view's share of a step, on a copy of the network.

    load: returns a batch of a given number of views.
    """
    device = training.device
    network = copy.deepcopy(training.network).to(device).to(memory_format=torch.channels_last)
    criterion = copy.deepcopy(training.criterion).to(device)
    loss_of = BatchLoss(network, criterion, training.normalise, training.precision).train()

    def step(batch: TrainingBatch) -> float:
        loss_of.zero_grad(set_to_none=True)
        _wait_for(device)
        began = time.perf_counter()
        batch = training.with_targets(batch).to(device)
        # The last step's weights of the terms, as a warm-up may leave some out of the first ones.
        torch.autograd.backward(loss_of(batch, training.num_steps - 1).total)
        _wait_for(device)
        return time.perf_counter() - began

    peaks = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for size in (2, 4):  # whose difference is free of all that does not grow with a batch
            batch = load(size)
            with _LiveTensors(device) as live:
                seconds = step(batch)
            peaks.append(live.largest)
        size = int(np.clip(4 * TRIAL_SECONDS / seconds, 2, max(2, training.crops_at_once)))
        began = time.perf_counter()
        batch = load(size)
        load_seconds = (time.perf_counter() - began) / size
        step_seconds = step(batch) / size
    return StepCost((peaks[1] - peaks[0]) // 2, batch.num_bytes // size, step_seconds, load_seconds)


def check_before_training(training: Training, views: LoadedViews, epochs_done: int = 0) -> str:
    """Return device, parameters, memory needed and free, and the time to expect, in one line.

    Raises:
        ConfigError: the training does not fit the memory; names a way out.
    """
    cost = measure_step(training, views.load)
    num_weights = count_parameters(training.network) + count_parameters(training.criterion)
    # Gradients and the optimiser's two averages; the weights are there already.
    constant = 3 * 4 * num_weights + ALLOCATOR_BYTES
    in_step, loaded = int(BESIDE_TENSORS * cost.step_bytes), cost.batch_bytes
    processes = max(1, views.num_workers)
    loading = processes * views.cache_bytes + views.num_workers * WORKER_BYTES
    if training.device.type == "cuda":
        place = " of the GPU's memory"
    else:
        place = " of memory"
        constant += loading
        loaded += PREFETCHED_BATCHES * views.num_workers * cost.batch_bytes
    free = free_on(training.device, training.processes)
    own_rows = -(-training.batch_size // training.processes.size)
    needed = constant + in_step * training.crops_at_once + loaded * own_rows
    if free is not None and needed > free:
        batch_size = (free - constant) // (in_step + loaded) * training.processes.size
        in_parts = (free - constant - loaded * own_rows) // max(1, in_step)
        smaller = "--preset" if training.info.kind == "student" else "--teacher"
        ways = []
        if 1 <= in_parts < own_rows:
            ways.append(f"--micro-batch {_power_of_two(in_parts)}")
        if batch_size >= 1:
            ways.append(f"--batch-size {_power_of_two(batch_size)}")
        way_out = f"give {', '.join(ways)}{' or ' if ways else ''}a smaller {smaller}"
        if not ways and training.device.type != "cuda" and loading > constant // 2:
            way_out = "give fewer --workers or a smaller data.image_cache_mib"
        raise ConfigError(
            f"a batch of {training.batch_size} needs about {_in_bytes(needed)}{place}, "
            f"{_in_bytes(free)} are free: {way_out}"
        )
    epochs = training.epochs - epochs_done
    num_views = epochs * training.steps_per_epoch * own_rows
    if views.num_workers:
        seconds = num_views * max(cost.step_seconds, cost.load_seconds / views.num_workers)
    else:
        seconds = num_views * (cost.step_seconds + cost.load_seconds)
    in_precision = "" if training.precision == "float32" else f", {training.precision}"
    if training.processes.size > 1:
        in_precision += f", one of {counted(training.processes.size, 'process')}"
    return (
        f"{_device(training.device)}{in_precision}: {training.info.architecture} of "
        f"{num_weights / 1e6:.1f} million parameters needs about {_in_bytes(needed)}{place}, "
        f"{'an unknown amount is' if free is None else f'{_in_bytes(free)} are'} free; "
        f"{counted(epochs, 'epoch')} of {counted(training.steps_per_epoch, 'step')} "
        f"{'takes' if epochs == 1 else 'take'} about "
        f"{_duration(seconds)}"
    )


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors on a device that are made within the context and live."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0
        """Largest sum at any moment."""
        self._device_type = device.type
        self._now = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == self._device_type:
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address in self._alive:  # another view of a tensor that is counted already
            return
        size = storage.nbytes()
        self._alive[address] = weakref.ref(storage, lambda _: self._drop(address, size))
        self._now += size
        self.largest = max(self.largest, self._now)

    def _drop(self, address: int, size: int) -> None:
        del self._alive[address]
        self._now -= size


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_on(device: torch.device, processes: Processes) -> int | None:
    """Return the bytes of a device that this process may still take; None: it is not known."""
    if device.type == "cuda":
        return _free_on_gpu(device)
    free = free_memory()
    return None if free is None else free // processes.num_on_machine


def _free_on_gpu(device: torch.device) -> int:
    """Return what the GPU has left, and what torch keeps of it without using it."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Metal GPU"
    return f"CPU, {counted(torch.get_num_threads(), 'thread')}"


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)


def _in_bytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}s"
    return f"{max(2, round(seconds))} seconds"
