"""The training loop of students and teachers.

An epoch is a function of (seed, epoch) and of the weights and the optimiser at its start, so a
training state after each whole epoch makes ``--resume`` exact: an interrupted epoch is repeated
from its beginning.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from pipeline.errors import TrainingError
from pipeline.progress import Progress
from pipeline.runs.checkpoints import (
    CheckpointInfo,
    DecidingFigure,
    TrainingPlace,
    load_training_state,
    save_training_state,
    save_weights,
)
from pipeline.runs.run_folder import RunFolder
from pipeline.training.batch import TrainingBatch
from pipeline.training.losses import Criterion, LossTerms
from pipeline.training.optimisation import build_optimizer, build_scheduler
from pipeline.training.settings import OptimisationConfig
from pipeline.wording import counted

_logger = logging.getLogger(__name__)

LOG_EVERY_STEPS = 20
"""Interval at which losses are copied to the host, which waits for the device."""
LOG_EVERY_SECONDS = 1.0
"""Interval at which they are copied where that many steps take longer."""


class EpochLedger(Protocol):
    """Counts events in the batches, such as corrupt views, and records them for each epoch."""

    def epoch_facts(self) -> Mapping[str, object]:
        """Return further entries for the line of the epoch that just ended in metrics.jsonl."""
        ...

    def restore(self, lines: Sequence[Mapping[str, object]]) -> None:
        """Restore the counts from the lines of metrics.jsonl of earlier epochs."""


class NoLedger:
    """Counts nothing."""

    def epoch_facts(self) -> Mapping[str, object]:
        """Return no entries."""
        return {}

    def restore(self, lines: Sequence[Mapping[str, object]]) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Training:
    """All that one training needs besides its run folder."""

    network: nn.Module
    criterion: Criterion
    normalise: Callable[[Tensor], Tensor]
    """Normalises the crops of a batch on the device."""
    info: CheckpointInfo
    """Description saved with the weights; epoch, step and scored keypoints are then filled in."""
    batches_of_epoch: Callable[[int], Iterable[TrainingBatch]]
    steps_per_epoch: int
    batch_size: int
    epochs: int
    optimisation: OptimisationConfig
    device: torch.device
    validate: Callable[[nn.Module, CheckpointInfo], Mapping[str, float | None]] | None = None
    """Returns metrics of a network in evaluation mode, the one that decides among them; None: no
    validation."""
    decided_by: DecidingFigure = "AP"
    evaluate_every_epochs: int = 1
    ledger: EpochLedger = field(default_factory=NoLedger)

    @property
    def num_steps(self) -> int:
        return self.epochs * self.steps_per_epoch


def fit(
    training: Training, run_folder: RunFolder, progress: Progress, *, resume: bool = False
) -> TrainingPlace:
    """Train to the last epoch; metrics and checkpoints are written to the run folder.

    resume: continue after the last whole epoch that the run folder holds.
    Returns epoch, step and best AP or PCK at the end.

    Raises:
        TrainingError: a loss or a gradient is not finite; the checkpoints are still those of the
            last whole epoch.
        DistilError, StoreError: a batch cannot be loaded.
    """
    network = training.network.to(training.device).to(memory_format=torch.channels_last)
    criterion = training.criterion.to(training.device)
    optimizer = build_optimizer(network, criterion, training.optimisation)
    scheduler = build_scheduler(optimizer, training.optimisation, training.num_steps)
    place = TrainingPlace(epoch=0, step=0)
    if resume and run_folder.training_state.is_file():
        place = load_training_state(run_folder.training_state, network, criterion, optimizer)
    run_folder.truncate_metrics(place.step)
    training.ledger.restore(run_folder.read_metrics())
    progress.update(place.step, training.num_steps)
    for epoch in range(place.epoch, training.epochs):
        try:
            means = _train_epoch(training, optimizer, scheduler, epoch, progress)
        except KeyboardInterrupt:
            _logger.warning(
                "interrupted in epoch %d; %s holds %s: continue with --resume",
                epoch + 1,
                run_folder.root,
                counted(place.epoch, "whole epoch"),
            )
            raise
        place = _next_place(training, place)
        _logger.info("epoch %d of %d: %s", place.epoch, training.epochs, in_words(means))
        run_folder.append_metrics(
            {
                "event": "epoch",
                "epoch": place.epoch,
                "step": place.step,
                "person_views": place.step * training.batch_size,
                "learning_rate": optimizer.param_groups[0]["lr"],
                **means,
                **training.ledger.epoch_facts(),
            }
        )
        place = _validate(training, run_folder, place)
        save_weights(run_folder.last_weights, network, _info_at(training, place))
        # The state is written last: without it the epoch does not count as done.
        save_training_state(run_folder.training_state, network, criterion, optimizer, place)
    return place


def _train_epoch(
    training: Training,
    optimizer: torch.optim.Optimizer,
    scheduler: Scheduler,
    epoch: int,
    progress: Progress,
) -> dict[str, float]:
    """Run one epoch and return the mean of the loss and of each term over its steps."""
    _seed_epoch(training.info.seed, epoch)
    network, criterion = training.network.train(), training.criterion.train()
    forward = partial(network, with_tokens=True) if criterion.reads_tokens else network
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    largest_norm = training.optimisation.gradient_clip or float("inf")
    first_step = epoch * training.steps_per_epoch
    record = EpochRecord(first_step)
    since = time.perf_counter()
    for step, batch in enumerate(training.batches_of_epoch(epoch), start=first_step):
        scheduler.step_update(step)
        batch = batch.to(training.device)
        output = forward(training.normalise(batch.images))
        loss = criterion(output, batch, step)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.total)
        norm = nn.utils.clip_grad_norm_(weights, largest_norm)
        optimizer.step()
        record.add(loss, norm)
        done = step + 1 - first_step
        now = time.perf_counter()
        is_due = done % LOG_EVERY_STEPS == 0 or now - since >= LOG_EVERY_SECONDS
        if is_due or done == training.steps_per_epoch:
            num_steps = record.num_waiting
            means = record.read_back()  # raises TrainingError where one is not finite
            now = time.perf_counter()
            images_per_second = num_steps * training.batch_size / (now - since)
            since = now
            rate = optimizer.param_groups[0]["lr"]
            figures = {**means, "lr": rate, "images/s": images_per_second}
            progress.update(step + 1, training.num_steps, figures)
    return record.epoch_means()


def _seed_epoch(seed: int, epoch: int) -> None:
    """Seed torch's global generator, for networks with dropout or other random layers."""
    digest = hashlib.sha256(f"epoch {seed} {epoch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "little"))


def _next_place(training: Training, place: TrainingPlace) -> TrainingPlace:
    scored = {*place.scored_keypoints, *training.criterion.scored_keypoints}
    return TrainingPlace(
        epoch=place.epoch + 1,
        step=place.step + training.steps_per_epoch,
        best_ap=place.best_ap,
        best_pck=place.best_pck,
        scored_keypoints=tuple(sorted(scored)),
    )


def _info_at(training: Training, place: TrainingPlace) -> CheckpointInfo:
    return training.info.model_copy(
        update={
            "epoch": place.epoch,
            "step": place.step,
            "scored_keypoints": place.scored_keypoints,
        }
    )


def _validate(training: Training, run_folder: RunFolder, place: TrainingPlace) -> TrainingPlace:
    """Validate the network if this epoch is due, and save the weights if they are the best so far.

    Without validation the last weights count as the best.
    """
    is_due = place.epoch % training.evaluate_every_epochs == 0 or place.epoch == training.epochs
    if training.validate is None:
        save_weights(run_folder.best_weights, training.network, _info_at(training, place))
        return place
    if not is_due:
        return place
    figures = dict(training.validate(training.network.eval(), _info_at(training, place)))
    _logger.info("validation after epoch %d: %s", place.epoch, in_words(figures))
    run_folder.append_metrics(
        {"event": "validation", "epoch": place.epoch, "step": place.step, **figures}
    )
    name = training.decided_by
    found, best = figures.get(name), place.best_ap if name == "AP" else place.best_pck
    # Of equal figures the later one counts: early networks often have an AP of 0.
    if found is None or (best is not None and found < best):
        return place
    save_weights(run_folder.best_weights, training.network, _info_at(training, place))
    _logger.info("best weights: epoch %d, by its %s of %.4g", place.epoch, name, found)
    return place.model_copy(update={"best_ap" if name == "AP" else "best_pck": found})


class EpochRecord:
    """The losses of an epoch, kept on the device until ``read_back`` copies them to the host."""

    def __init__(self, first_step: int) -> None:
        self._step = first_step
        self._names: tuple[str, ...] = ()
        self._waiting: list[Tensor] = []
        self._sums: list[float] = []
        self._num_steps = 0

    @property
    def num_waiting(self) -> int:
        """Number of steps that are not read back yet."""
        return len(self._waiting)

    def add(self, loss: LossTerms, gradient_norm: Tensor) -> None:
        """Keep the losses and the gradient norm of a step, without waiting for the device."""
        self._names = ("loss", *loss.terms)
        values = [loss.total, *loss.terms.values(), gradient_norm]
        self._waiting.append(torch.stack([value.detach().float() for value in values]))

    def read_back(self) -> dict[str, float]:
        """Return the mean loss and terms of the steps that were not read back yet.

        Raises:
            TrainingError: a loss or a gradient is not finite; names step and terms.
        """
        rows = torch.stack(self._waiting).double().tolist()
        self._waiting.clear()
        for row in rows:
            self._step += 1
            if not all(map(_is_finite, row)):
                names = (*self._names, "gradient norm")
                raise TrainingError(
                    f"the loss or gradient of step {self._step} is not finite: "
                    f"{in_words(dict(zip(names, row, strict=True)))}; nothing was saved since the "
                    "last whole epoch; lower optimisation.learning_rate or set "
                    "optimisation.gradient_clip"
                )
        # Row by row, so that an epoch's means do not depend on when rows are read back.
        for row in rows:
            self._sums = [a + b for a, b in zip(self._sums or [0.0] * len(row), row, strict=True)]
        self._num_steps += len(rows)
        sums = (sum(column) for column in zip(*rows, strict=True))
        return {name: x / len(rows) for name, x in zip(self._names, sums, strict=False)}

    def epoch_means(self) -> dict[str, float]:
        """Return the mean of the loss and of each term over the steps that were read back."""
        return {
            name: total / self._num_steps
            for name, total in zip(self._names, self._sums, strict=False)
        }


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")


def in_words(figures: Mapping[str, float | None]) -> str:
    """Return figures by name as one line of text."""
    return ", ".join(
        f"{name} {'none' if value is None else format(value, '.4g')}"
        for name, value in figures.items()
    )
