"""The tensors of a training batch by name, those of its teacher among them."""

from dataclasses import fields, replace
from typing import Any, TypeVar

from torch import Tensor

from pipeline.training.batch import TeacherBatch, TrainingBatch


def tensors_of(batch: TrainingBatch) -> dict[str, Tensor]:
    parts: list[TrainingBatch | TeacherBatch] = [batch]
    if batch.teacher is not None:
        parts.append(batch.teacher)
    return {
        field.name: value
        for part in parts
        for field in fields(part)
        if isinstance(value := getattr(part, field.name), Tensor)
    }


_RecordT = TypeVar("_RecordT", TrainingBatch, TeacherBatch)


def person_of(batch: TrainingBatch, row: int) -> TrainingBatch:
    """Return the batch of one of its people alone."""
    teacher = None if batch.teacher is None else _row_of(batch.teacher, row)
    return replace(_row_of(batch, row), teacher=teacher)


def _row_of(record: _RecordT, row: int) -> _RecordT:
    parts: dict[str, Any] = {
        field.name: value[row : row + 1]
        for field in fields(record)
        if isinstance(value := getattr(record, field.name), Tensor)
    }
    return replace(record, **parts)


def heatmaps_of(batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Return the stored heatmaps of a batch that holds them, and their scale."""
    assert batch.teacher is not None
    assert batch.teacher.heatmaps is not None
    assert batch.teacher.scale is not None
    return batch.teacher.heatmaps, batch.teacher.scale
