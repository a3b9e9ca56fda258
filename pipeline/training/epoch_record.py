"""Losses of an epoch: kept on the device step by step, copied to the host in groups, checked."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import TrainingError
from pipeline.training.losses import LossTerms


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
        sums = [sum(column) for column in zip(*rows, strict=True)]
        self._sums = [a + b for a, b in zip(self._sums or [0.0] * len(sums), sums, strict=True)]
        self._num_steps += len(rows)
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
