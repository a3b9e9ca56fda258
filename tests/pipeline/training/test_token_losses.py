"""Losses of tokens: the released distance, the projector, and what cannot be compared."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.models.heads import StudentOutput
from pipeline.models.token_encoder import Tokens, TokenShape
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.loss_parts import LossContext
from pipeline.training.losses import StudentCriterion
from pipeline.training.settings import LossConfig
from pipeline.training.token_losses import TokenProjector, resample_tokens, token_loss
from tests.support.student_outputs import NUM_KEYPOINTS, student_batch, student_output, uniform

STUDENT, TEACHER = TokenShape(8, (4, 3)), TokenShape(12, (8, 6))


def _tokens(shape: TokenShape, seed: int = 20) -> Tokens:
    height, width = shape.grid_hw
    return Tokens(
        uniform(-2, 2, 2, NUM_KEYPOINTS, shape.dim, seed=seed),
        uniform(-2, 2, 2, height * width, shape.dim, seed=seed + 1),
    )


def _batch(shape: TokenShape, dtype: torch.dtype = torch.float16) -> TrainingBatch:
    affine = torch.eye(3, dtype=torch.float64)[None, :2].repeat(2, 1, 1)
    tokens = _tokens(shape, seed=30)
    teacher = TeacherBatch(
        affine,
        keypoint_tokens=tokens.keypoint_tokens.to(dtype),
        visual_tokens=tokens.visual_tokens.to(dtype),
    )
    weights = torch.zeros(2, NUM_KEYPOINTS, dtype=torch.float64)
    return TrainingBatch(**{**vars(student_batch(weights)), "teacher": teacher})


def _criterion(projector: bool = False, teacher: TokenShape = TEACHER) -> StudentCriterion:
    config = LossConfig(
        regression=0,
        simulated_heatmap=0,
        confidence=0,
        keypoint_token=5e-4,
        visual_token=2e-3,
        token_projector=projector,
    )
    context = LossContext(student_tokens=STUDENT, teacher_tokens=teacher)
    return StudentCriterion(config, NUM_KEYPOINTS, context).double()


def _mean_square(a: Tensor, b: Tensor) -> float:
    differences = [(x - y) ** 2 for x, y in zip(a.flatten(), b.double().flatten(), strict=True)]
    return float(sum(differences)) / len(differences)


def test_the_terms_are_the_mean_squares_of_all_tokens_whatever_is_labelled() -> None:
    tokens, batch = _tokens(STUDENT), _batch(STUDENT)
    loss = _criterion(teacher=STUDENT)(student_output(tokens=tokens), batch, 0)
    assert batch.teacher is not None
    assert batch.teacher.keypoint_tokens is not None
    assert batch.teacher.visual_tokens is not None
    expected = {
        "keypoint_token": _mean_square(tokens.keypoint_tokens, batch.teacher.keypoint_tokens),
        "visual_token": _mean_square(tokens.visual_tokens, batch.teacher.visual_tokens),
    }
    assert {name: term.item() for name, term in loss.terms.items()} == pytest.approx(expected)
    total = 5e-4 * expected["keypoint_token"] + 2e-3 * expected["visual_token"]
    assert loss.total.item() == pytest.approx(total)


def test_token_gradients_match_finite_differences_through_the_projector() -> None:
    batch, criterion, tokens = _batch(TEACHER), _criterion(projector=True), _tokens(STUDENT)

    def total(keypoint_tokens: Tensor, visual_tokens: Tensor) -> Tensor:
        output = student_output(tokens=Tokens(keypoint_tokens, visual_tokens))
        loss: Tensor = criterion(output, batch, 0).total
        return loss

    assert gradcheck(total, tuple(each.requires_grad_() for each in tokens))


def test_the_projector_maps_and_resamples() -> None:
    """A linear map of each token, and values between patches by their centres."""
    torch.manual_seed(0)
    projector, tokens = TokenProjector(STUDENT, TEACHER).double(), _tokens(STUDENT)
    projected = projector(tokens)
    assert projected.keypoint_tokens.shape == (2, NUM_KEYPOINTS, 12)
    assert projected.visual_tokens.shape == (2, 48, 12)
    keypoint = tokens.keypoint_tokens @ projector.keypoint.weight.T + projector.keypoint.bias
    torch.testing.assert_close(projected.keypoint_tokens, keypoint)
    grid = tokens.visual_tokens.transpose(1, 2).reshape(2, 8, 4, 3)
    places_y, places_x = ((torch.arange(n) + 0.5).double() / n * 2 - 1 for n in (8, 6))
    where = torch.stack(torch.meshgrid(places_y, places_x, indexing="ij")[::-1], -1)
    sampled = functional.grid_sample(
        grid, where.expand(2, 8, 6, 2), padding_mode="border", align_corners=False
    )
    visual = sampled.flatten(2).transpose(1, 2) @ projector.visual.weight.T + projector.visual.bias
    torch.testing.assert_close(projected.visual_tokens, visual)


def test_resampling_is_over_the_crop_row_by_row() -> None:
    """A ramp over the rows stays one: between the outer centres it is exact."""
    rows = torch.arange(4.0).repeat_interleave(3)[None, :, None]
    finer = resample_tokens(rows, (4, 3), (8, 6)).view(8, 6)
    assert finer[:, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    assert (finer == finer[:, :1]).all()
    assert resample_tokens(rows, (4, 3), (4, 3)) is rows


def test_the_projector_is_trained_and_saved_with_the_criterion() -> None:
    criterion = _criterion(projector=True)
    names = set(criterion.state_dict())
    kinds = ("keypoint.weight", "keypoint.bias", "visual.weight", "visual.bias")
    assert names == {f"parts.token_projector.{kind}" for kind in kinds}
    loss = criterion(student_output(tokens=_tokens(STUDENT)), _batch(TEACHER), 0)
    gradients = torch.autograd.grad(loss.total, list(criterion.parameters()))
    assert all((gradient != 0).any() for gradient in gradients)
    assert not list(_criterion(teacher=STUDENT).parameters())


def test_stored_halves_are_compared_in_float32_under_autocast() -> None:
    tokens = Tokens(*(each.bfloat16() for each in _tokens(STUDENT)))
    criterion, batch = _criterion(teacher=STUDENT).float(), _batch(STUDENT)
    floats = Tokens(*(each.float() for each in tokens))
    expected = criterion(student_output(tokens=floats), batch, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = criterion(student_output(tokens=tokens), batch, 0)
    assert all(term.dtype == torch.float32 for term in mixed.terms.values())
    assert mixed.terms == expected.terms


def test_tokens_are_asked_of_student_and_teacher() -> None:
    assert _criterion().reads_tokens
    assert not StudentCriterion(LossConfig(), NUM_KEYPOINTS).reads_tokens
    assert _criterion().config.reads == {"keypoint_tokens", "visual_tokens"}
    assert not LossConfig(token_projector=True).reads_tokens


@pytest.mark.parametrize(
    ("output", "batch", "message"),
    [
        (student_output(), _batch(STUDENT), "reads the student's tokens, but its output has none"),
        (
            student_output(tokens=_tokens(STUDENT)),
            student_batch(),
            r"need a teacher's tokens of shape \(2, 3, 8\), but the batch holds none",
        ),
        (
            student_output(tokens=_tokens(STUDENT)),
            _batch(TEACHER),
            r"of shape \(2, 3, 8\), but .* \(2, 3, 12\); set loss.token_projector",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    output: StudentOutput, batch: TrainingBatch, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _criterion(teacher=STUDENT)(output, batch, 0)


@pytest.mark.parametrize(
    ("context", "lacking"),
    [
        (LossContext(teacher_tokens=TEACHER), "student"),
        (LossContext(student_tokens=STUDENT), "teacher"),
    ],
)
def test_a_projector_between_tokens_that_do_not_exist_is_refused(
    context: LossContext, lacking: str
) -> None:
    with pytest.raises(ConfigError, match=rf"but the {lacking} has none; choose another"):
        StudentCriterion(LossConfig(visual_token=1, token_projector=True), 3, context)


def test_the_token_loss_does_not_broadcast() -> None:
    tokens = uniform(-1, 1, 1, 2, 4)
    assert token_loss(tokens, tokens.half()).item() < 1e-6
