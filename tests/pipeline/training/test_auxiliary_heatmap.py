"""A heatmap head beside the student's: its targets, its masks, and that it is left behind."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from pipeline.errors import ConfigError
from pipeline.models.heads import StudentOutput
from pipeline.models.token_encoder import Tokens, TokenShape
from pipeline.training.batch import TrainingBatch
from pipeline.training.loss_parts import LossContext
from pipeline.training.losses import StudentCriterion
from pipeline.training.settings import LossConfig
from tests.support.student_outputs import HEATMAP_SIZE_HW, student_batch, student_output, uniform

CONTEXT = LossContext(student_tokens=TokenShape(8, (4, 3)), heatmap_size_hw=HEATMAP_SIZE_HW)


def _criterion(target: str = "truth", **settings: object) -> StudentCriterion:
    alone = {"regression": 0, "simulated_heatmap": 0, "confidence": 0, "auxiliary_heatmap": 1}
    config = {**alone, "auxiliary_heatmap_target": target, **settings}
    torch.manual_seed(0)
    return StudentCriterion(LossConfig.model_validate(config), 3, CONTEXT).double()


def _output() -> StudentOutput:
    keypoint_tokens = uniform(-2, 2, 2, 3, 8, seed=20).requires_grad_()
    return student_output(tokens=Tokens(keypoint_tokens, uniform(-2, 2, 2, 12, 8, seed=21)))


def _predicted(criterion: StudentCriterion, output: StudentOutput) -> Tensor:
    assert output.tokens is not None
    assert criterion.parts.heatmap_head is not None
    heatmaps: Tensor = criterion.parts.heatmap_head(output.tokens.keypoint_tokens)
    return heatmaps


def _total(criterion: StudentCriterion, output: StudentOutput, batch: TrainingBatch) -> Tensor:
    total: Tensor = criterion(output, batch, 0).total
    return total


def test_the_head_learns_gaussians_of_sigma_2_around_the_truth() -> None:
    """Written out cell by cell: a crop of 48 x 64 has heatmaps of 12 x 16, resized by pixels."""
    criterion, output, batch = _criterion(), _output(), student_batch()
    predicted, total = _predicted(criterion, output), 0.0
    for person, k in batch.keypoint_weights.nonzero().tolist():
        x, y = ((v + 0.5) / 4 - 0.5 for v in batch.keypoints[person, k].tolist())
        for v in range(16):
            for u in range(12):
                heat = math.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 2.0**2))
                total += (predicted[person, k, v, u].item() - heat) ** 2
    expected = total / (2 * 3 * 16 * 12)
    assert _total(criterion, output, batch).item() == pytest.approx(expected)


def test_the_head_learns_the_teachers_heat_where_it_is_known() -> None:
    criterion, output, batch = _criterion("teacher"), _output(), student_batch()
    assert batch.teacher is not None
    assert batch.teacher.heatmaps is not None
    assert batch.teacher.scale is not None
    is_known = uniform(0, 1, 2, *HEATMAP_SIZE_HW, seed=7) > 0.3
    batch = replace(batch, teacher=replace(batch.teacher, is_known=is_known))
    assert batch.teacher is not None
    heat = batch.teacher.heatmaps * batch.teacher.scale[..., None, None]  # type: ignore[operator, index]
    errors = (_predicted(criterion, output) - heat) * is_known[:, None]
    expected = (errors.square() * batch.keypoint_weights[..., None, None]).mean()
    torch.testing.assert_close(_total(criterion, output, batch), expected)


@pytest.mark.parametrize("target", ["truth", "teacher"])
def test_gradients_match_finite_differences(target: str) -> None:
    criterion, output, batch = _criterion(target), _output(), student_batch()
    assert output.tokens is not None
    visual_tokens = output.tokens.visual_tokens

    def total(keypoint_tokens: Tensor) -> Tensor:
        moved = output._replace(tokens=Tokens(keypoint_tokens, visual_tokens))
        return _total(criterion, moved, batch)

    assert gradcheck(total, (output.tokens.keypoint_tokens,))


@pytest.mark.parametrize("target", ["truth", "teacher"])
def test_what_is_not_learned_leaves_no_trace(target: str) -> None:
    """NaN keypoints and maps behind weight 0 reach neither tokens nor head."""
    criterion, output, batch = _criterion(target), _output(), student_batch()
    is_masked = batch.keypoint_weights == 0
    assert batch.teacher is not None
    assert batch.teacher.heatmaps is not None
    assert output.tokens is not None
    inputs = [output.tokens.keypoint_tokens, *criterion.parameters()]
    found = []
    for dirt in (0.0, math.nan):
        heatmaps = batch.teacher.heatmaps.double().masked_fill(is_masked[..., None, None], dirt)
        dirty = replace(
            batch,
            keypoints=batch.keypoints.masked_fill(is_masked[..., None], dirt),
            teacher=replace(batch.teacher, heatmaps=heatmaps),
        )
        found.append(torch.autograd.grad(_total(criterion, output, dirty), inputs))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert (found[0][0][is_masked] == 0).all()
    assert all((gradient != 0).any() for gradient in found[0])


def test_the_head_belongs_to_the_criterion_and_only_where_it_is_asked_for() -> None:
    criterion = _criterion()
    assert all(name.startswith("parts.heatmap_head.") for name in criterion.state_dict())
    assert criterion.reads_tokens
    assert criterion.parts.heatmap_head is not None
    shapes = [tuple(weight.shape) for weight in criterion.parts.heatmap_head.parameters()]
    assert (16, 8) in shapes  # a hidden layer of twice the tokens' width
    assert (16 * 12, 16) in shapes
    absent = _criterion(regression=1, auxiliary_heatmap=0)
    assert not list(absent.parameters())
    assert not absent.reads_tokens


def test_truth_is_a_target_without_a_teacher_and_the_teachers_maps_are_not() -> None:
    of_truth = LossConfig(auxiliary_heatmap=1)
    assert "auxiliary_heatmap" in of_truth.without_teacher().terms
    assert not of_truth.terms["auxiliary_heatmap"].reads
    of_teacher = LossConfig(auxiliary_heatmap=1, auxiliary_heatmap_target="teacher")
    assert "auxiliary_heatmap" not in of_teacher.without_teacher().terms
    assert of_teacher.terms["auxiliary_heatmap"].reads == {"heatmaps"}
    _total(_criterion(), _output(), replace(student_batch(), teacher=None))


def test_half_precision_tokens_are_read_in_float32_under_autocast() -> None:
    output, criterion = _output(), _criterion().float()
    assert output.tokens is not None
    halves = output._replace(tokens=Tokens(*(each.detach().bfloat16() for each in output.tokens)))
    assert halves.tokens is not None
    floats = halves._replace(tokens=Tokens(*(each.float() for each in halves.tokens)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = criterion(halves, student_batch(), 0)
    assert mixed.terms["auxiliary_heatmap"].dtype == torch.float32
    assert mixed.terms == criterion(floats, student_batch(), 0).terms


def test_a_student_without_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"keypoint tokens, but it has none; choose another"):
        StudentCriterion(LossConfig(auxiliary_heatmap=1), 3)
