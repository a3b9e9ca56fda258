"""The tensors of a training batch by name, those of its teacher among them."""

from dataclasses import fields

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


def heatmaps_of(batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Return the stored heatmaps of a batch that holds them, and their scale."""
    assert batch.teacher is not None
    assert batch.teacher.heatmaps is not None
    assert batch.teacher.scale is not None
    return batch.teacher.heatmaps, batch.teacher.scale
