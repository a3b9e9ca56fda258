"""The losses of an epoch: kept on the device, read back now and then, and their means."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import TrainingError
from pipeline.training.distributed import ALONE, Processes
from pipeline.training.losses import LossTerms

_NORM = "gradient norm"


class EpochRecord:
    """The losses of an epoch, kept on the device until ``read_back`` copies them to the host.

    first_step: step of the training that the record begins with.
    sums: of the steps of this epoch before, as ``sums`` gave them.
    """

    def __init__(
        self,
        first_step: int,
        sums: Mapping[str, float] = {},
        num_steps: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        self._step = first_step
        self._waiting: list[Tensor] = []
        self._sums = dict(sums)
        self._num_steps = num_steps
        self._processes = processes
        self._names: tuple[str, ...] = ()

    @property
    def num_waiting(self) -> int:
        """Number of steps that are not read back yet."""
        return len(self._waiting)

    @property
    def sums(self) -> dict[str, float]:
        """Sums of the loss and of each term over the steps that were read back."""
        return dict(self._sums)

    def add(self, loss: LossTerms, gradient_norm: Tensor, share: float = 1.0) -> None:
        """Keep the losses and the gradient norm of a step, without waiting for the device.

        share: this process's part of the batch; the sum over all processes is kept in the end.
        """
        self._names = ("loss", *loss.terms, _NORM)
        values = [loss.total, *loss.terms.values(), gradient_norm]
        self._waiting.append(share * torch.stack([value.detach().float() for value in values]))

    def read_back(self) -> dict[str, float]:
        """Return the mean loss and terms of the steps that were not read back yet.

        Raises:
            TrainingError: a loss or a gradient is not finite; names step and terms.
        """
        rows = self._processes.summed(torch.stack(self._waiting).cpu().double()).tolist()
        self._waiting.clear()
        for row in rows:
            self._step += 1
            if not all(map(_is_finite, row)):
                raise TrainingError(
                    f"the loss or gradient of step {self._step} is not finite: "
                    f"{in_words(dict(zip(self._names, row, strict=True)))}; nothing was saved "
                    "since the last checkpoint; lower optimisation.learning_rate or set "
                    "optimisation.gradient_clip"
                )
        names = self._names[:-1]
        # Row by row, so that an epoch's means do not depend on when rows are read back.
        for row in rows:
            for name, value in zip(names, row, strict=False):
                self._sums[name] = self._sums.get(name, 0.0) + value
        self._num_steps += len(rows)
        columns = (sum(column) for column in zip(*rows, strict=True))
        return {name: x / len(rows) for name, x in zip(names, columns, strict=False)}

    def epoch_means(self) -> dict[str, float]:
        """Return the mean of the loss and of each term over the steps that were read back."""
        return {name: total / self._num_steps for name, total in self._sums.items()}


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")


def in_words(figures: Mapping[str, float | None]) -> str:
    """Return figures by name as one line of text."""
    return ", ".join(
        f"{name} {'none' if value is None else format(value, '.4g')}"
        for name, value in figures.items()
    )
