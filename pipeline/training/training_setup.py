"""What one training is made of, besides its run folder."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.runs.checkpoints import CheckpointInfo, DecidingFigure
from pipeline.settings import Precision
from pipeline.training.batch import TrainingBatch, unchanged
from pipeline.training.distributed import ALONE, Processes
from pipeline.training.losses import Criterion
from pipeline.training.settings import OptimisationConfig


class EpochLedger(Protocol):
    """Counts events in the batches, such as corrupt views, and records them for each epoch."""

    def epoch_facts(self) -> Mapping[str, object]:
        """Return further entries for the line of the epoch that just ended in metrics.jsonl."""
        ...

    def facts_so_far(self) -> Mapping[str, object]:
        """Return those entries for the epoch that runs."""
        ...

    def restore(
        self, lines: Sequence[Mapping[str, object]], so_far: Mapping[str, object] = {}
    ) -> None:
        """Restore the counts from earlier epochs' lines, and from the running epoch's entries."""

    def summary(self) -> str | None:
        """Return a line on what was counted; None: nothing was."""
        ...


class NoLedger:
    """Counts nothing."""

    def epoch_facts(self) -> Mapping[str, object]:
        """Return no entries."""
        return {}

    def facts_so_far(self) -> Mapping[str, object]:
        """Return no entries."""
        return {}

    def restore(
        self, lines: Sequence[Mapping[str, object]], so_far: Mapping[str, object] = {}
    ) -> None:
        """Do nothing."""

    def summary(self) -> None:
        """Return no line."""


class MetricSink(Protocol):
    """Takes the figures of a training as they are found, beside metrics.jsonl."""

    def add(self, kind: str, step: int, figures: Mapping[str, object]) -> None:
        """Take the figures after a number of steps.

        kind: ``step``, ``epoch`` or ``validation``, for figures of the last steps, of a whole epoch
            or of the validation people.
        """

    def close(self) -> None:
        """Write what is still waiting."""


@dataclass(frozen=True)
class Training:
    """All that one training needs besides its run folder."""

    network: nn.Module
    criterion: Criterion
    normalise: Callable[[Tensor], Tensor]
    """Normalises the crops of a batch on the device."""
    info: CheckpointInfo
    """Description saved with the weights; epoch, step and scored keypoints are then filled in."""
    batches_of_epoch: Callable[[int, int], Iterable[TrainingBatch]]
    """Returns the batches of an epoch from a position on, of each the rows of this process."""
    steps_per_epoch: int
    batch_size: int
    """Number of crops in a batch, those of all processes."""
    epochs: int
    optimisation: OptimisationConfig
    device: torch.device
    precision: Precision = "float32"
    with_targets: Callable[[TrainingBatch], TrainingBatch] = unchanged
    """Completes a loaded batch by what a live teacher predicts; with a store nothing is missing."""
    is_compiled: bool = False
    processes: Processes = ALONE
    sync_batch_norm: bool = True
    """Whether batch normalisation sees the rows of all processes."""
    checkpoint_seconds: float = float("inf")
    """Time after which the training state is saved within an epoch."""
    validate: Callable[[nn.Module, CheckpointInfo], Mapping[str, float | None]] | None = None
    """Returns metrics of a network in evaluation mode, the one that decides among them; None: no
    validation. All processes call it, and get the same."""
    decided_by: DecidingFigure = "AP"
    evaluate_every_epochs: int = 1
    ledger: EpochLedger = field(default_factory=NoLedger)
    sinks: Sequence[MetricSink] = ()

    @property
    def num_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def crops_at_once(self) -> int:
        """Largest number of crops in one forward pass of a process."""
        of_process = -(-self.batch_size // self.processes.size)
        return min(of_process, self.optimisation.micro_batch or of_process)

    def is_validated_after(self, epoch: int) -> bool:
        """Return whether there is a validation after so many epochs."""
        is_due = epoch % self.evaluate_every_epochs == 0 or epoch == self.epochs
        return self.validate is not None and is_due
