"""The record that travels from the reader of a store, or of photographs, to the losses.

A loss sees its tensors, never people, files or stores; ``replacements`` is for the ledger alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from pipeline.frames.pixels import numbers_beside


@dataclass(frozen=True)
class _OnDevice:
    """Moves and cuts the tensors of a frozen dataclass, whose first axis is that of samples."""

    def to(self, device: torch.device) -> Self:
        """Return the record with its tensors on a device; copies do not block."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def rows(self, start: int, stop: int) -> Self:
        """Return the record of the samples ``start`` to ``stop - 1``."""
        return self._with_tensors(lambda tensor: tensor[start:stop])

    def take(self, rows: Tensor) -> Self:
        """Return the record of the samples at (n,) ``rows``, on the device of its tensors."""
        return self._with_tensors(
            lambda tensor: tensor.index_select(0, rows.to(tensor.device, non_blocking=True))
        )

    def like(self, num_samples: int, device: torch.device) -> Self:
        """Return a record of so many samples on a device, not filled yet."""
        return self._with_tensors(
            lambda tensor: tensor.new_empty((num_samples, *tensor.shape[1:]), device=device)
        )

    def put(self, start: int, samples: Self) -> None:
        """Copy samples into the record, from ``start`` on."""
        for field in fields(self):
            held, value = getattr(self, field.name), getattr(samples, field.name)
            if isinstance(held, Tensor):
                held[start : start + len(value)].copy_(value)
            elif isinstance(held, _OnDevice):
                held.put(start, value)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = change(value)
            elif isinstance(value, _OnDevice):
                changed[field.name] = value._with_tensors(change)
        return replace(self, **changed)

    @property
    def num_bytes(self) -> int:
        """Size of all tensors."""
        parts = (getattr(self, field.name) for field in fields(self))
        return sum(
            part.nbytes if isinstance(part, Tensor) else part.num_bytes
            for part in parts
            if isinstance(part, Tensor | _OnDevice)
        )


@dataclass(frozen=True)
class TeacherBatch(_OnDevice):
    """A teacher's predictions for a batch of crops; a field that no loss term reads is None."""

    crop_to_heatmap: Tensor  # (B, 2, 3), the *student's* crop pixels to the frame of the heatmaps
    heatmaps: Tensor | None = None  # (B, K, Hh, Wh) uint8 or float, heat = heatmaps * scale
    scale: Tensor | None = None  # (B, K); None: 1, for float heatmaps only
    is_known: Tensor | None = None  # (B, Hh, Wh) bool, cells with heat; None: all of them
    keypoints: Tensor | None = None  # (B, K, 2) as (x, y), the student's crop pixels
    keypoint_weights: Tensor | None = None  # (B, K) in {0, 1}: inside the student's crop
    confidences: Tensor | None = None  # (B, K), heat of the highest cell
    keypoint_tokens: Tensor | None = None  # (B, K, D) of the last layer
    visual_tokens: Tensor | None = None  # (B, P, D) of the last layer, row by row


@dataclass(frozen=True)
class TrainingBatch(_OnDevice):
    """The crops of one training step and their targets."""

    images: Tensor  # (B, H, W, 3) uint8, RGB, the student's crops
    keypoints: Tensor  # (B, K, 2) as (x, y), crop pixels; undefined where the weight is 0
    keypoint_weights: Tensor  # (B, K) in {0, 1}: labelled and inside the crop
    is_labelled: Tensor  # (B, K) bool: the ground truth has a position, inside the crop or not
    areas: Tensor  # (B,), area of the person as annotated, crop pixels squared
    teacher: TeacherBatch | None = None  # None: no loss term reads a teacher
    teacher_crops: Tensor | None = None  # (B, H, W, 3) uint8, RGB, for a live teacher
    replacements: Sequence[Any] = ()  # a ``Replacement`` for each corrupt view

    @property
    def crop_size_wh(self) -> Tensor:
        """(2,) as (W, H), on the device of the images."""
        return numbers_beside(self.keypoints, self.images.shape[1:3][::-1])


def unchanged(batch: TrainingBatch) -> TrainingBatch:
    """Return a batch as it is: its targets were loaded with it."""
    return batch
