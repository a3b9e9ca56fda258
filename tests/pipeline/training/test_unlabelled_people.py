"""What people without labels, and keypoints without one, learn from the teacher."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models.heads import StudentOutput
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.heatmap_losses import (
    confidence_loss,
    render_gaussians,
    simulated_heatmap_loss,
)
from pipeline.training.losses import StudentCriterion
from pipeline.training.settings import LossConfig

SIZE, HEATMAP = (64, 48), (16, 12)
LABELLED, UNLABELLED, PARTLY = 0, 1, 2
CONFIDENCES = [[0.5, 0.5, 0.5], [0.9, 1.3, 0.19], [0.9, 0.2, 0.9]]


def batch_of() -> TrainingBatch:
    """Three people: labelled; without labels; and one whose last two keypoints have no label.

    The second person's first keypoint lies outside the student's crop.
    """
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]])
    points = torch.rand(3, 3, 2, generator=generator) * torch.tensor([40.0, 56.0]) + 3
    return TrainingBatch(
        images=torch.zeros(3, *SIZE, 3, dtype=torch.uint8),
        keypoints=torch.where(weights[..., None] > 0, points, float("nan")),
        keypoint_weights=weights,
        is_labelled=weights > 0,
        areas=torch.full((3,), 500.0),
        teacher=TeacherBatch(
            crop_to_heatmap=torch.tensor([[0.25, 0, 0], [0, 0.25, 0]]).repeat(3, 1, 1),
            heatmaps=torch.randint(0, 256, (3, 3, *HEATMAP), generator=generator).to(torch.uint8),
            scale=torch.full((3, 3), 1 / 255),
            keypoints=points + 1.0,
            keypoint_weights=torch.tensor([[1.0, 1, 1], [0, 1, 1], [1, 1, 1]]),
            confidences=torch.tensor(CONFIDENCES),
        ),
    )


def output_of() -> StudentOutput:
    generator = torch.Generator().manual_seed(1)
    return StudentOutput(
        keypoints=(0.2 + 0.6 * torch.rand(3, 3, 2, generator=generator)).requires_grad_(),
        scores=torch.rand(3, 3, generator=generator).requires_grad_(),
        sigmas=(1 + torch.rand(3, 3, 2, generator=generator)).requires_grad_(),
    )


def gradients(config: LossConfig, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Return which keypoints and which scores the loss moves: (3, 3) each."""
    output = output_of()
    loss = StudentCriterion(config, 3)(output, batch, 0)
    grads = torch.autograd.grad(
        loss.total, [output.keypoints, output.scores], materialize_grads=True
    )
    moved = [g.abs().reshape(3, 3, -1).sum(-1) for g in grads]
    assert not any(torch.isnan(g).any() for g in moved)
    return moved[0], moved[1]


def only(**weights: object) -> LossConfig:
    nothing = {"regression": 0.0, "simulated_heatmap": 0.0, "confidence": 0.0}
    return LossConfig.model_validate({**nothing, **weights})


def test_teacher_regression_is_the_weighted_distance_where_there_is_no_label() -> None:
    """Computed keypoint by keypoint; the weight is the confidence, at most 1, from 0.2 on."""
    batch, output = batch_of(), output_of()
    assert batch.teacher is not None
    assert batch.teacher.keypoints is not None
    total = 0.0
    for person, keypoint, weight in ((UNLABELLED, 1, 1.0), (PARTLY, 1, 0.2), (PARTLY, 2, 0.9)):
        target = batch.teacher.keypoints[person, keypoint]
        for axis, size in enumerate((48, 64)):
            error = output.keypoints.detach()[person, keypoint, axis] - target[axis] / size
            total += weight * abs(float(error))
    config = only(teacher_regression=1.0, regression_kind="l1")
    loss = StudentCriterion(config, 3)(output, batch, 0)
    assert float(loss.terms["teacher_regression"].detach()) == pytest.approx(
        total / (3 * 3 * 2), rel=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [[0, 0, 0], [0, 1, 0], [0, 1, 1]]),
        ({"teacher_regression_on": "all"}, [[1, 1, 1], [0, 1, 0], [1, 1, 1]]),
        ({"teacher_threshold": 0.1}, [[0, 0, 0], [0, 1, 1], [0, 1, 1]]),
        ({"teacher_threshold": 0.95}, [[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
        ({"teacher_weighting": "none"}, [[0, 0, 0], [0, 1, 0], [0, 1, 1]]),
    ],
    ids=["default", "on all", "low threshold", "high threshold", "equal weights"],
)
def test_who_learns_from_the_teachers_keypoints(
    changes: dict[str, object], expected: list[list[int]]
) -> None:
    moved, _ = gradients(only(teacher_regression=1.0, **changes), batch_of())
    assert (moved > 0).int().tolist() == expected


def test_without_weighting_every_confident_keypoint_weighs_the_same() -> None:
    """The gradient of L1 is the sign times the weight."""
    config = only(teacher_regression=18.0, regression_kind="l1", teacher_weighting="none")
    moved, _ = gradients(config, batch_of())
    assert moved[moved > 0].tolist() == pytest.approx([2.0, 2.0, 2.0])
    weighted = only(teacher_regression=18.0, regression_kind="l1")
    moved, _ = gradients(weighted, batch_of())
    assert moved[moved > 0].tolist() == pytest.approx([2.0, 0.4, 1.8])


def test_people_without_labels_learn_from_the_heatmaps_and_labelled_ones_as_before() -> None:
    """A Gaussian learns where the teacher is confident, a score everywhere: low heat too."""
    moved, _ = gradients(only(simulated_heatmap=1.0), batch_of())
    assert (moved > 0).int().tolist() == [[1, 1, 1], [0, 1, 0], [1, 0, 0]]
    _, scored = gradients(only(confidence=1.0), batch_of())
    assert (scored > 0).int().tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    everywhere = only(simulated_heatmap=1.0, confidence=1.0, distil_unlabelled_keypoints=True)
    moved, scored = gradients(everywhere, batch_of())
    assert (moved > 0).all()
    assert (scored > 0).all()


def test_labels_alone_leave_people_without_labels_unmoved() -> None:
    moved, scored = gradients(only(regression=1.0), batch_of())
    assert (moved > 0).int().tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert not scored.any()


def test_terms_that_need_a_teachers_keypoints_are_refused_without_them() -> None:
    batch = batch_of()
    assert batch.teacher is not None
    without = replace(batch, teacher=replace(batch.teacher, confidences=None))
    with pytest.raises(ConfigError, match="need a teacher's keypoints"):
        StudentCriterion(only(teacher_regression=1.0), 3)(output_of(), without, 0)


def test_unknown_cells_are_left_out_of_the_simulated_heatmap_loss() -> None:
    """Compared with Gaussians drawn cell by cell and masked, in double precision."""
    generator = torch.Generator().manual_seed(2)
    points = torch.rand(2, 3, 2, generator=generator, dtype=torch.float64) * 12
    sigmas = 1 + torch.rand(2, 3, 2, generator=generator, dtype=torch.float64)
    is_known = torch.rand(2, *HEATMAP, generator=generator) > 0.4
    heat = torch.rand(2, 3, *HEATMAP, generator=generator, dtype=torch.float64)
    heat = heat * is_known[:, None]
    weights = torch.tensor([[1.0, 0, 1], [1, 1, 1]], dtype=torch.float64)
    drawn = render_gaussians(points, sigmas, HEATMAP)
    expected = 0.0
    for b in range(2):
        for k in range(3):
            for v in range(HEATMAP[0]):
                for u in range(HEATMAP[1]):
                    if weights[b, k] and is_known[b, v, u]:
                        expected += float(drawn[b, k, v, u] - heat[b, k, v, u]) ** 2
    found = simulated_heatmap_loss(points, sigmas, heat, weights, is_known=is_known)
    assert float(found) == pytest.approx(expected / (6 * math.prod(HEATMAP)), rel=1e-10)


def test_a_score_on_an_unknown_cell_learns_nothing_but_outside_the_map_heat_is_none() -> None:
    is_known = torch.ones(1, *HEATMAP, dtype=torch.bool)
    is_known[0, 5, 4] = False
    points = torch.tensor([[[4.2, 5.4], [3.0, 5.0], [-3.0, 5.0]]])
    heat = torch.full((1, 3, *HEATMAP), 0.5) * is_known[:, None]
    scores = torch.tensor([[0.9, 0.8, 0.7]], requires_grad=True)
    loss = confidence_loss(scores, points, heat, torch.ones(1, 3), is_known=is_known)
    assert loss.item() == pytest.approx((0.0 + 0.3 + 0.7) / 3)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert (gradient != 0).tolist() == [[False, True, True]]
