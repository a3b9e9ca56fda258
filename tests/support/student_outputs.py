"""Random outputs of a student, and batches with a teacher's predictions to compare them with."""

import torch
from torch import Tensor

from pipeline.models.heads import StudentOutput
from pipeline.models.token_encoder import Tokens
from pipeline.training.batch import TeacherBatch, TrainingBatch

BATCH, NUM_KEYPOINTS = 2, 3
INPUT_SIZE_HW, HEATMAP_SIZE_HW = (64, 48), (16, 12)


def uniform(low: float, high: float, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def student_output(seed: int = 6, tokens: Tokens | None = None) -> StudentOutput:
    return StudentOutput(
        keypoints=uniform(0.1, 0.9, BATCH, NUM_KEYPOINTS, 2, seed=seed).requires_grad_(),
        scores=uniform(-0.2, 1.1, BATCH, NUM_KEYPOINTS, seed=seed + 1).requires_grad_(),
        sigmas=uniform(0.7, 2.5, BATCH, NUM_KEYPOINTS, 2, seed=seed + 2).requires_grad_(),
        tokens=tokens,
    )


def student_batch(
    weights: Tensor | None = None, is_labelled: Tensor | None = None
) -> TrainingBatch:
    """Two people with a few labels, and heatmaps whose peaks lie inside."""
    if weights is None:
        weights = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    height, width = INPUT_SIZE_HW
    size = torch.tensor([width, height], dtype=torch.float64)
    heatmaps = uniform(0, 200, BATCH, NUM_KEYPOINTS, *HEATMAP_SIZE_HW, seed=4)
    heatmaps[..., 7, 5] = 250
    affine = torch.tensor([[0.25, 0.0, 0.0], [0.0, 0.25, 0.0]], dtype=torch.float64)
    return TrainingBatch(
        images=torch.zeros(BATCH, height, width, 3, dtype=torch.uint8),
        keypoints=uniform(0.1, 0.9, BATCH, NUM_KEYPOINTS, 2, seed=9) * size,
        keypoint_weights=weights,
        is_labelled=weights > 0 if is_labelled is None else is_labelled,
        areas=uniform(400, 900, BATCH, seed=10),
        teacher=TeacherBatch(
            crop_to_heatmap=affine.repeat(BATCH, 1, 1),
            heatmaps=heatmaps.to(torch.uint8),
            scale=uniform(0.5, 1.2, BATCH, NUM_KEYPOINTS, seed=5) / 255,
            keypoints=uniform(0.1, 0.9, BATCH, NUM_KEYPOINTS, 2, seed=11) * size,
            keypoint_weights=torch.ones(BATCH, NUM_KEYPOINTS, dtype=torch.float64),
            confidences=uniform(0.1, 0.9, BATCH, NUM_KEYPOINTS, seed=12),
        ),
    )
