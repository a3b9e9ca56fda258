"""Where the simulated heatmap loss pulls a student to, in every heatmap frame."""

import math
from dataclasses import replace

import pytest
import torch

from pipeline.models.heads import StudentOutput
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.heatmap_losses import gaussian_factors, heat_at
from pipeline.training.losses import StudentCriterion, keypoints_to_heatmap
from pipeline.training.settings import LossConfig
from tests.support.training_batches import heatmaps_of

HEATMAP_SIZE_HW = (16, 12)
INPUT_SIZE_HW = (64, 48)
FRAMES = {
    "msra": [[0.25, 0.0, 0.0], [0.0, 0.25, 0.0]],
    "half-pixel": [[0.25, 0.0, -0.375], [0.0, 0.25, -0.375]],
    "udp": [[11 / 47, 0.0, 0.0], [0.0, 15 / 63, 0.0]],
}
TRUTH_PX = torch.tensor([[[20.3, 33.7], [26.9, 18.2], [14.6, 41.0]]], dtype=torch.float64)


def _teacher_that_knows_the_truth(affine: list[list[float]]) -> TrainingBatch:
    """Draw maps of sigma 2 at the truth, cell by cell, and store them as the store does."""
    rows, columns = HEATMAP_SIZE_HW
    heat = torch.empty(1, 3, rows, columns, dtype=torch.float64)
    for k, (x_px, y_px) in enumerate(TRUTH_PX[0].tolist()):
        x = affine[0][0] * x_px + affine[0][1] * y_px + affine[0][2]
        y = affine[1][0] * x_px + affine[1][1] * y_px + affine[1][2]
        for v in range(rows):
            for u in range(columns):
                heat[0, k, v, u] = math.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 2.0**2))
    scale = heat.amax((-2, -1)) / 255
    return TrainingBatch(
        images=torch.zeros(1, *INPUT_SIZE_HW, 3, dtype=torch.uint8),
        keypoints=TRUTH_PX,
        keypoint_weights=torch.ones(1, 3, dtype=torch.float64),
        is_labelled=torch.ones(1, 3, dtype=torch.bool),
        areas=torch.full((1,), 1000.0),
        teacher=TeacherBatch(
            crop_to_heatmap=torch.tensor(affine, dtype=torch.float64)[None],
            heatmaps=(heat / scale[..., None, None]).round().to(torch.uint8),
            scale=scale,
            keypoints=TRUTH_PX,
            keypoint_weights=torch.ones(1, 3, dtype=torch.float64),
            confidences=torch.ones(1, 3, dtype=torch.float64),
        ),
    )


def _cells_off_after_descent(targets: TrainingBatch) -> float:
    """Minimise the simulated heatmap term alone, and measure the miss at the *true* affine."""
    keypoints = (targets.keypoints / targets.crop_size_wh + 0.01).requires_grad_()
    log_sigmas = torch.full_like(keypoints, math.log(1.5)).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [keypoints, log_sigmas], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )
    config = LossConfig(regression=0.0, confidence=0.0)

    def closure() -> float:
        output = StudentOutput(keypoints, torch.zeros(1, 3), log_sigmas.exp())
        total = StudentCriterion(config, 3)(output, targets, 0).total
        keypoints.grad, log_sigmas.grad = torch.autograd.grad(total, [keypoints, log_sigmas])
        return total.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    pixels = keypoints.detach() * torch.tensor([48.0, 64.0])
    return ((pixels - TRUTH_PX).abs().max() / 4).item()


@pytest.mark.parametrize("frame", FRAMES)
def test_the_best_student_of_a_perfect_teacher_stands_on_the_truth(frame: str) -> None:
    """In every frame the minimum over (x, y, sigma) lies within 0.02 cell of the truth."""
    assert _cells_off_after_descent(_teacher_that_knows_the_truth(FRAMES[frame])) < 0.02


@pytest.mark.parametrize("frame", FRAMES)
def test_half_a_cell_of_misreading_moves_the_best_student(frame: str) -> None:
    """The test above can fail: another offset in the affine is seen in full."""
    targets = _teacher_that_knows_the_truth(FRAMES[frame])
    shift = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert targets.teacher is not None
    affine = targets.teacher.crop_to_heatmap + shift
    shifted = replace(targets, teacher=replace(targets.teacher, crop_to_heatmap=affine))
    assert _cells_off_after_descent(shifted) > 0.4


def test_transposed_maps_move_the_best_student() -> None:
    """Swapping x and y in what the teacher drew is seen as cells, not as noise."""
    targets = _teacher_that_knows_the_truth(FRAMES["msra"])
    upright, _ = heatmaps_of(targets)
    heatmaps = torch.zeros_like(upright)
    heatmaps[..., :12, :12] = upright[..., :12, :12].transpose(-1, -2)
    assert targets.teacher is not None
    swapped = replace(targets, teacher=replace(targets.teacher, heatmaps=heatmaps))
    assert _cells_off_after_descent(swapped) > 0.4


def test_centre_and_look_up_go_through_one_affine() -> None:
    """At the truth the Gaussian peaks in the cell whose heat the score learns, in every frame."""
    for affine in FRAMES.values():
        targets = _teacher_that_knows_the_truth(affine)
        heatmaps, scale = heatmaps_of(targets)
        points = keypoints_to_heatmap(targets.keypoints / targets.crop_size_wh, targets)
        column, row = gaussian_factors(points, torch.ones_like(points), HEATMAP_SIZE_HW)
        drawn_peak = column.argmax(-1) * HEATMAP_SIZE_HW[1] + row.argmax(-1)
        assert torch.equal(drawn_peak, heatmaps.flatten(-2).int().argmax(-1))
        heat = heat_at(points, heatmaps, scale)
        torch.testing.assert_close(heat, 255 * scale)
