"""The largest batch that fits the memory, for ``optimisation.batch_size = "auto"``.

On a GPU batches are tried, each twice as large as the one before, until one does not fit; on a CPU
the size follows from the memory that a view takes, as trying would bring the machine down.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from pipeline.errors import ConfigError
from pipeline.models.cost import count_parameters
from pipeline.models.pose_networks import PoseNetwork
from pipeline.runs.checkpoints import CheckpointInfo
from pipeline.settings import Precision
from pipeline.training.batch import TrainingBatch, unchanged
from pipeline.training.distributed import Processes
from pipeline.training.losses import Criterion
from pipeline.training.preflight import (
    ALLOCATOR_BYTES,
    BESIDE_TENSORS,
    PREFETCHED_BATCHES,
    WORKER_BYTES,
    free_on,
    measure_step,
)
from pipeline.training.settings import OptimisationConfig
from pipeline.training.training_setup import Training
from pipeline.training.training_step import BatchLoss
from pipeline.training.view_order import ViewBatch
from pipeline.wording import Log, counted

LEFT_FREE = 0.1
"""Share of the free memory that the batch leaves, for validation and fragments."""
_MANY_STEPS = 1 << 40


@dataclass(frozen=True)
class ViewsToTry:
    """Views of a training whose order is not known yet, and how they are loaded."""

    dataset: Dataset[TrainingBatch]
    instances: NDArray[np.int64]
    """(n,), rows of the people to train on; a batch has at most so many crops."""
    num_workers: int
    cache_bytes: int
    """Largest size of the decoded images that a worker, or this process without one, keeps."""
    with_targets: Callable[[TrainingBatch], TrainingBatch] = unchanged
    """Completes a loaded batch, as of ``Training``."""

    def load(self, size: int) -> TrainingBatch:
        """Load views of the first people, as often as needed to make ``size`` of them."""
        views = ViewBatch(np.resize(self.instances, size), np.ones(size, np.int64))
        return self.with_targets(self.dataset[views])


def with_batch_size(
    optimisation: OptimisationConfig,
    network: PoseNetwork,
    criterion: Criterion,
    info: CheckpointInfo,
    device: torch.device,
    precision: Precision,
    processes: Processes,
    views: ViewsToTry,
    say: Log,
) -> OptimisationConfig:
    """Return settings with a batch size: the given one, or the largest that fits.

    say: receives the size that was found.

    Raises:
        ConfigError: not even one crop for each process fits.
        DistilError, StoreError: a view cannot be loaded.
    """
    if optimisation.batch_size is not None:
        return optimisation
    training = Training(
        network=network,
        criterion=criterion,
        normalise=info.pixels.normalise,
        info=info,
        batches_of_epoch=lambda _, __: (),
        steps_per_epoch=_MANY_STEPS,  # after any warm-up of the distilled terms
        batch_size=1,
        epochs=1,
        optimisation=optimisation,
        device=device,
        precision=precision,
        processes=processes,
    )
    size = largest_batch(training, views)
    say(
        f"batch: {counted(size, 'crop')}, the largest power of two that fits; learning rate and "
        "epochs are those of the settings"
    )
    return optimisation.model_copy(update={"batch_size": size})


def largest_batch(training: Training, views: ViewsToTry) -> int:
    """Return the largest power of two of crops that all processes together can learn from at once.

    training: its batch size and steps do not count yet.

    Raises:
        ConfigError: not even one crop for each process fits, or there are fewer people.
        DistilError, StoreError: a view cannot be loaded.
    """
    processes = training.processes
    most = _power_of_two(len(views.instances) // processes.size)
    size = 0
    if training.device.type == "cuda":
        size = largest_that_runs(lambda size: _try_step(training, views.load(size)), most)
    elif most:
        size = min(most, _power_of_two(_crops_in_memory(training, views)))
    size = min(processes.gathered(size))  # GPUs may differ
    if size == 0:
        raise ConfigError(
            f"not even a batch of {processes.size} fits: give a smaller --preset, fewer --workers "
            "or processes, or more people"
        )
    return size * processes.size


def largest_that_runs(run: Callable[[int], None], most: int) -> int:
    """Return the largest of 1, 2, 4, ... up to ``most`` for which ``run`` has memory; 0: none."""
    largest, size = 0, 1
    while size <= most:
        try:
            run(size)
        except torch.OutOfMemoryError:
            break
        largest, size = size, 2 * size
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return largest


def _try_step(training: Training, batch: TrainingBatch) -> None:
    """Learn from a batch with a copy, beside as much memory as the optimiser is to take."""
    device = training.device
    network = copy.deepcopy(training.network).to(device).to(memory_format=torch.channels_last)
    criterion = copy.deepcopy(training.criterion).to(device)
    free = free_on(device, training.processes) or 0
    taken = 8 * _num_weights(training) + int(LEFT_FREE * free)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        beside = torch.empty(taken, dtype=torch.uint8, device=device)
        loss_of = BatchLoss(network, criterion, training.normalise, training.precision).train()
        torch.autograd.backward(loss_of(batch.to(device), training.num_steps - 1).total)
        del beside


def _crops_in_memory(training: Training, views: ViewsToTry) -> int:
    """Return how many crops fit the memory of a CPU, by the measure of the preflight."""
    free = free_on(training.device, training.processes)
    if free is None:
        raise ConfigError(
            "optimisation.batch_size is auto, but this system does not say how much memory is "
            "free; give --batch-size a number"
        )
    cost = measure_step(training, views.load)
    constant = 3 * 4 * _num_weights(training) + ALLOCATOR_BYTES
    constant += max(1, views.num_workers) * views.cache_bytes + views.num_workers * WORKER_BYTES
    of_a_crop = int(BESIDE_TENSORS * cost.step_bytes)
    of_a_crop += (1 + PREFETCHED_BATCHES * views.num_workers) * cost.batch_bytes
    return max(0, int((1 - LEFT_FREE) * free) - constant) // of_a_crop


def _num_weights(training: Training) -> int:
    return count_parameters(training.network) + count_parameters(training.criterion)


def _power_of_two(number: int) -> int:
    """Return the largest power of two up to a number; 0 for 0."""
    return (1 << number.bit_length()) >> 1
