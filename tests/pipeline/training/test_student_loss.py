"""The student's loss as a whole: its terms, its mask, its warm-up and its refusals."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.autograd import gradcheck

from pipeline.errors import ConfigError
from pipeline.models.heads import StudentOutput
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.losses import (
    LOSS_OF_TERM,
    LossTerms,
    StudentCriterion,
    keypoints_to_heatmap,
    term_weight,
)
from pipeline.training.settings import LossConfig, RegressionKind
from tests.support.training_batches import person_of

HEATMAP_SIZE_HW = (16, 12)
INPUT_SIZE_HW = (64, 48)
BATCH, NUM_KEYPOINTS = 2, 3
MSRA = torch.tensor([[0.25, 0.0, 0.0], [0.0, 0.25, 0.0]], dtype=torch.float64)


def _uniform(low: float, high: float, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def _some_weights() -> Tensor:
    return torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)


def _output(seed: int = 6) -> StudentOutput:
    return StudentOutput(
        keypoints=_uniform(0.1, 0.9, BATCH, NUM_KEYPOINTS, 2, seed=seed).requires_grad_(),
        scores=_uniform(-0.2, 1.1, BATCH, NUM_KEYPOINTS, seed=seed + 1).requires_grad_(),
        sigmas=_uniform(0.7, 2.5, BATCH, NUM_KEYPOINTS, 2, seed=seed + 2).requires_grad_(),
    )


def _batch(weights: Tensor | None = None) -> TrainingBatch:
    height, width = INPUT_SIZE_HW
    fractions = _uniform(0.1, 0.9, BATCH, NUM_KEYPOINTS, 2, seed=9)
    heatmaps = _uniform(0, 256, BATCH, NUM_KEYPOINTS, *HEATMAP_SIZE_HW, seed=4)
    return TrainingBatch(
        images=torch.zeros(BATCH, height, width, 3, dtype=torch.uint8),
        keypoints=fractions * torch.tensor([width, height], dtype=torch.float64),
        keypoint_weights=_some_weights() if weights is None else weights,
        is_labelled=torch.ones(BATCH, NUM_KEYPOINTS, dtype=torch.bool),
        areas=_uniform(100, 900, BATCH, seed=12),
        teacher=TeacherBatch(
            crop_to_heatmap=MSRA.repeat(BATCH, 1, 1),
            heatmaps=heatmaps.to(torch.uint8),
            scale=_uniform(0.5, 1.2, BATCH, NUM_KEYPOINTS, seed=5) / 255,
            keypoints=_uniform(2, 40, BATCH, NUM_KEYPOINTS, 2, seed=10),
            keypoint_weights=torch.ones(BATCH, NUM_KEYPOINTS, dtype=torch.float64),
            confidences=_uniform(0.3, 1.2, BATCH, NUM_KEYPOINTS, seed=11),
        ),
    )


def _with_teacher(batch: TrainingBatch, **changes: Any) -> TrainingBatch:
    assert batch.teacher is not None
    return replace(batch, teacher=replace(batch.teacher, **changes))


def student_loss(
    output: StudentOutput, batch: TrainingBatch, config: LossConfig, step: int
) -> LossTerms:
    loss: LossTerms = StudentCriterion(config, NUM_KEYPOINTS)(output, batch, step)
    return loss


@pytest.mark.parametrize("kind", ["smooth_l1", "l1"])
def test_unlabelled_keypoints_do_not_exist(kind: RegressionKind) -> None:
    """NaN targets, NaN scales and wild maps behind weight 0 change no term and no gradient."""
    config, output, clean = LossConfig(regression_kind=kind), _output(), _batch()
    is_masked = clean.keypoint_weights == 0
    teacher = clean.teacher
    assert teacher is not None
    assert teacher.heatmaps is not None
    assert teacher.scale is not None
    dirty = _with_teacher(
        replace(clean, keypoints=clean.keypoints.masked_fill(is_masked[..., None], math.nan)),
        heatmaps=teacher.heatmaps.masked_fill(is_masked[..., None, None], 255),
        scale=teacher.scale.masked_fill(is_masked, math.nan),
    )
    losses = [student_loss(output, targets, config, 0) for targets in (clean, dirty)]
    assert losses[0].total.isfinite()
    assert losses[0].terms == losses[1].terms
    first, second = (torch.autograd.grad(loss.total, output[:3]) for loss in losses)
    for actual, expected in zip(first, second, strict=True):
        assert torch.equal(actual, expected)
        assert (actual[is_masked] == 0).all()
        assert (actual[~is_masked] != 0).any()


def test_people_of_a_batch_do_not_mix() -> None:
    """The loss of a batch is the mean of the losses of its people, mask or no mask.

    The released code broadcast the mask over the batch, so that people masked each other.
    """
    output, targets, config = _output(), _batch(), LossConfig()
    together = student_loss(output, targets, config, 0)
    alone = []
    for b in range(BATCH):
        person = person_of(targets, b)
        keypoints, scores, sigmas = (tensor[b : b + 1] for tensor in output[:3])
        part = StudentOutput(keypoints, scores, sigmas)
        alone.append(student_loss(part, person, config, 0).terms)
    for name, value in together.terms.items():
        torch.testing.assert_close(value, torch.stack([x[name] for x in alone]).mean())


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (LossConfig(), {"regression", "simulated_heatmap", "confidence"}),
        (LossConfig(simulated_heatmap=0.0, confidence=0.0), {"regression"}),
        (LossConfig(regression=0.0, simulated_heatmap=0.0), {"confidence"}),
        (LossConfig(confidence=0.0, simulated_heatmap=3.0), {"regression", "simulated_heatmap"}),
    ],
)
def test_exactly_the_configured_terms_show_up_and_sum_to_the_total(
    config: LossConfig, names: set[str]
) -> None:
    """The total is the weighted sum of the terms, each found under its name."""
    loss = student_loss(_output(), _batch(), config, 0)
    assert set(loss.terms) == names
    expected = sum(getattr(config, name) * value.item() for name, value in loss.terms.items())
    assert loss.total.item() == pytest.approx(expected)
    assert not any(term.requires_grad for term in loss.terms.values())


def test_student_loss_gradients_match_finite_differences() -> None:
    """All terms together, in all outputs that they teach."""
    output, targets = _output(), _batch()
    config = LossConfig(simulated_heatmap=2.0, confidence=0.0, sigma_floor=0.3)

    def total(keypoints: Tensor, sigmas: Tensor) -> Tensor:
        return student_loss(
            output._replace(keypoints=keypoints, sigmas=sigmas), targets, config, 0
        )[0]

    assert gradcheck(total, (output.keypoints, output.sigmas))


def test_a_teacher_may_speak_where_the_ground_truth_is_silent() -> None:
    """The switch gives unlabelled keypoints to the two distilled terms and not to regression."""
    output, everyone = _output(), _batch(torch.ones(BATCH, NUM_KEYPOINTS, dtype=torch.float64))
    switched = student_loss(output, _batch(), LossConfig(distil_unlabelled_keypoints=True), 0)
    masked = student_loss(output, _batch(), LossConfig(), 0)
    full = student_loss(output, everyone, LossConfig(), 0)
    assert switched.terms["regression"] == masked.terms["regression"] != full.terms["regression"]
    for name in ("simulated_heatmap", "confidence"):
        assert switched.terms[name] == full.terms[name] != masked.terms[name]


def test_distilled_weights_grow_linearly_from_zero() -> None:
    """The warm-up scales the distilled weights, never the regression."""
    config = LossConfig(simulated_heatmap=2.0, distillation_warmup_steps=10)
    weights = [term_weight(config, "simulated_heatmap", step) for step in (0, 5, 10, 1000)]
    assert weights == [0.0, 1.0, 2.0, 2.0]
    assert term_weight(config, "regression", 0) == 1.0
    first = student_loss(_output(), _batch(), config, 0)
    assert first.total.item() == pytest.approx(first.terms["regression"].item())
    assert set(first.terms) == {"regression", "simulated_heatmap", "confidence"}


def test_regression_targets_are_fractions_of_the_crops_width_and_height() -> None:
    """The point (12, 48) of a crop 48 wide and 64 high is (1/4, 3/4) of it."""
    point = torch.tensor([12.0, 48.0], dtype=torch.float64)
    targets = replace(_batch(), keypoints=point.expand(BATCH, NUM_KEYPOINTS, 2))
    fractions = torch.tensor([0.25, 0.75], dtype=torch.float64)
    output = _output()._replace(keypoints=fractions.expand(BATCH, NUM_KEYPOINTS, 2))
    assert student_loss(output, targets, LossConfig(), 0).terms["regression"] == 0


def test_a_rotated_affine_is_applied_as_a_whole() -> None:
    """x and y may mix on the way to the heatmap: nothing assumes a diagonal affine."""
    affine = torch.tensor([[0.1, 0.2, 1.0], [-0.3, 0.25, 2.0]], dtype=torch.float64)
    targets = _with_teacher(_batch(), crop_to_heatmap=affine[None])
    points = keypoints_to_heatmap(torch.tensor([[[0.5, 0.25]]], dtype=torch.float64), targets)
    x_px, y_px = 24.0, 16.0
    expected = [0.1 * x_px + 0.2 * y_px + 1.0, -0.3 * x_px + 0.25 * y_px + 2.0]
    assert points[0, 0].tolist() == pytest.approx(expected)


def test_mixed_precision_stops_at_the_outputs() -> None:
    """Half-precision outputs under autocast give, to the bit, the loss of their float32 values."""
    half, scores, sigmas = (tensor.detach().bfloat16() for tensor in _output()[:3])
    halves = StudentOutput(half, scores, sigmas)
    floats = StudentOutput(half.float(), scores.float(), sigmas.float())
    exact = student_loss(floats, _batch(), LossConfig(), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = student_loss(halves, _batch(), LossConfig(), 0)
    assert mixed.total.dtype == torch.float32
    assert mixed.terms == exact.terms


def test_distillation_without_a_teacher_is_refused() -> None:
    """A configured term never disappears in silence."""
    targets = _with_teacher(_batch(), heatmaps=None, scale=None)
    with pytest.raises(ConfigError, match=r"confidence need a teacher's heatmaps, but the batch"):
        student_loss(_output(), targets, LossConfig(), 0)
    with pytest.raises(
        ConfigError, match=r"need a teacher's predictions, but the batch holds none"
    ):
        student_loss(_output(), replace(targets, teacher=None), LossConfig(), 0)
    alone = LossConfig(simulated_heatmap=0.0, confidence=0.0)
    assert set(student_loss(_output(), targets, alone, 0).terms) == {"regression"}


def test_stored_heatmaps_without_their_scale_are_refused() -> None:
    """Raw bytes are not heat: without a scale they would be taken for peaks of 255."""
    with pytest.raises(ConfigError, match=r"got torch.uint8 without a scale"):
        student_loss(_output(), _with_teacher(_batch(), scale=None), LossConfig(), 0)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"regression": -1.0}, "greater than or equal to 0"),
        ({"confidence": math.inf}, "finite number"),
        ({"regresion": 1.0}, "Extra inputs"),
        ({"regression_kind": "l2"}, "'smooth_l1' or 'l1'"),
        ({"regression": 0.0, "simulated_heatmap": 0.0, "confidence": 0.0}, "at least one above 0"),
    ],
)
def test_a_loss_configuration_that_means_nothing_is_refused(
    setting: dict[str, object], complaint: str
) -> None:
    """Negative, infinite, misspelt or empty settings stop before training."""
    with pytest.raises(ValidationError, match=complaint):
        LossConfig.model_validate(setting)


def test_every_weight_has_a_loss_and_every_loss_a_weight() -> None:
    """Adding a term is one entry on either side; none can be forgotten."""
    assert list(LOSS_OF_TERM) == list(LossConfig.all_terms())
    assert set(LossConfig.all_terms()) == set(LOSS_OF_TERM)
    fields = LossConfig.model_fields.items()
    numbers = {name for name, field in fields if field.annotation is float}
    assert numbers - set(LOSS_OF_TERM) == {"sigma_floor", "teacher_threshold"}


def test_only_what_the_configured_terms_read_is_asked_of_a_store() -> None:
    assert LossConfig().reads == {"heatmaps"}
    assert LossConfig().without_teacher().reads == frozenset()
    assert LossConfig().without_teacher() == LossConfig(simulated_heatmap=0.0, confidence=0.0)


def test_keypoints_whose_score_was_trained_are_remembered_over_batches() -> None:
    """A keypoint counts once any person of any batch taught its score."""
    criterion = StudentCriterion(LossConfig(), NUM_KEYPOINTS)
    rows = ([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for row, expected in zip(rows, [(2,), (0, 2)], strict=True):
        criterion(_output(), _batch(torch.tensor(row, dtype=torch.float64)), 0)
        assert criterion.scored_keypoints == expected
    silent = StudentCriterion(LossConfig(confidence=0.0), NUM_KEYPOINTS)
    silent(_output(), _batch(), 0)
    assert silent.scored_keypoints == ()
    everyone = StudentCriterion(LossConfig(distil_unlabelled_keypoints=True), NUM_KEYPOINTS)
    everyone(_output(), _batch(torch.zeros(BATCH, NUM_KEYPOINTS, dtype=torch.float64)), 0)
    assert everyone.scored_keypoints == (0, 1, 2)
