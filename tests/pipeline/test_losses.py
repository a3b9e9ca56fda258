"""Every loss term against its dense, plain statement, its finite differences and its mask."""

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.autograd import gradcheck

from pipeline.errors import ConfigError
from pipeline.losses import (
    LossConfig,
    RegressionKind,
    TrainingTargets,
    confidence_loss,
    gaussian_factors,
    heat_at,
    heatmap_loss,
    keypoints_to_heatmap,
    regression_loss,
    render_gaussians,
    simulated_heatmap_loss,
    student_loss,
    term_weight,
)
from pipeline.models.heads import StudentOutput

HEATMAP_SIZE_HW = (16, 12)
INPUT_SIZE_HW = (64, 48)
BATCH, NUM_KEYPOINTS = 2, 3
MSRA = torch.tensor([[0.25, 0.0, 0.0], [0.0, 0.25, 0.0]], dtype=torch.float64)


def _uniform(low: float, high: float, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def _points(seed: int = 1) -> Tensor:
    return _uniform(2.3, 9.4, BATCH, NUM_KEYPOINTS, 2, seed=seed)


def _sigmas(seed: int = 2) -> Tensor:
    return _uniform(0.7, 2.5, BATCH, NUM_KEYPOINTS, 2, seed=seed)


def _float_heatmaps(seed: int = 3) -> Tensor:
    return _uniform(-0.1, 1.0, BATCH, NUM_KEYPOINTS, *HEATMAP_SIZE_HW, seed=seed)


def _stored_heatmaps(seed: int = 4) -> tuple[Tensor, Tensor]:
    heatmaps = _uniform(0, 256, BATCH, NUM_KEYPOINTS, *HEATMAP_SIZE_HW, seed=seed)
    return heatmaps.to(torch.uint8), _uniform(0.5, 1.2, BATCH, NUM_KEYPOINTS, seed=5) / 255


def _some_weights() -> Tensor:
    return torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)


def _output(seed: int = 6) -> StudentOutput:
    return StudentOutput(
        keypoints=_uniform(0.1, 0.9, BATCH, NUM_KEYPOINTS, 2, seed=seed).requires_grad_(),
        scores=_uniform(-0.2, 1.1, BATCH, NUM_KEYPOINTS, seed=seed + 1).requires_grad_(),
        sigmas=_sigmas(seed + 2).requires_grad_(),
    )


def _targets(weights: Tensor | None = None) -> TrainingTargets:
    heatmaps, scale = _stored_heatmaps()
    return TrainingTargets(
        keypoints=_uniform(0.1, 0.9, BATCH, NUM_KEYPOINTS, 2, seed=9),
        keypoint_weights=_some_weights() if weights is None else weights,
        crop_to_heatmap=MSRA,
        input_size_hw=INPUT_SIZE_HW,
        heatmaps=heatmaps,
        scale=scale,
    )


# Rendering


def test_a_rendered_gaussian_is_the_written_out_one() -> None:
    """Cell (v, u) holds exp(-((u - x)^2 / sx^2 + (v - y)^2 / sy^2) / 2)."""
    points, sigmas = _points(), _sigmas()
    rendered = render_gaussians(points, sigmas, HEATMAP_SIZE_HW)
    assert rendered.shape == (BATCH, NUM_KEYPOINTS, *HEATMAP_SIZE_HW)
    for v, u in [(0, 0), (5, 2), (15, 11), (3, 9)]:
        (x, y), (sx, sy) = points[1, 2].tolist(), sigmas[1, 2].tolist()
        expected = math.exp(-((u - x) ** 2 / sx**2 + (v - y) ** 2 / sy**2) / 2)
        assert rendered[1, 2, v, u].item() == pytest.approx(expected, rel=1e-6, abs=1e-30)


def test_a_vanishing_sigma_leaves_one_cell_and_finite_gradients() -> None:
    """At sigma 0 the Gaussian is a point; nothing divides by zero."""
    points = torch.tensor([[[3.0, 4.0], [3.4, 4.0]]], requires_grad=True)
    sigmas = torch.zeros(1, 2, 2, requires_grad=True)
    rendered = render_gaussians(points, sigmas, HEATMAP_SIZE_HW)
    assert rendered[0].sum((-2, -1)).tolist() == pytest.approx([1.0, 0.0], abs=1e-12)
    for gradient in torch.autograd.grad(rendered.sum(), (points, sigmas)):
        assert gradient.isfinite().all()


def test_a_sigma_floor_bounds_the_width_from_below() -> None:
    """The floor adds in quadrature: sigmas 3 and floor 4 draw what sigma 5 draws."""
    points = _points()
    floored = render_gaussians(points, torch.full_like(points, 3.0), HEATMAP_SIZE_HW, 4.0)
    expected = render_gaussians(points, torch.full_like(points, 5.0), HEATMAP_SIZE_HW)
    torch.testing.assert_close(floored, expected)


# Simulated heatmaps


def _dense_simulated_heatmap_loss(
    points: Tensor, sigmas: Tensor, heat: Tensor, weights: Tensor
) -> Tensor:
    errors = render_gaussians(points, sigmas, HEATMAP_SIZE_HW) - heat
    return (weights * errors.square().mean((-2, -1))).mean()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_separable_simulated_heatmap_loss_is_the_dense_one(dtype: torch.dtype) -> None:
    """Loss and gradients of the product form equal those of drawing every Gaussian."""
    heatmaps, scale = _stored_heatmaps()
    scale, weights = scale.to(dtype), _some_weights().to(dtype)
    inputs = [x.to(dtype).requires_grad_() for x in (_points(), _sigmas())]
    separable = simulated_heatmap_loss(inputs[0], inputs[1], heatmaps, weights, scale)
    heat = heatmaps.to(dtype) * scale[..., None, None]
    dense = _dense_simulated_heatmap_loss(inputs[0], inputs[1], heat, weights)
    torch.testing.assert_close(separable, dense)
    gradients = [torch.autograd.grad(loss, inputs) for loss in (separable, dense)]
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


def test_float_heatmaps_and_stored_heatmaps_give_the_same_loss() -> None:
    """uint8 with a scale is another spelling of the same heat."""
    heatmaps, scale = _stored_heatmaps()
    heat = heatmaps * scale[..., None, None]
    stored = simulated_heatmap_loss(_points(), _sigmas(), heatmaps, _some_weights(), scale)
    plain = simulated_heatmap_loss(_points(), _sigmas(), heat, _some_weights())
    torch.testing.assert_close(stored, plain)


def test_simulating_a_map_exactly_costs_nothing_in_float32() -> None:
    """The large products cancel: a perfect student's loss is 0 up to rounding."""
    points, sigmas = _points().float(), _sigmas().float()
    heat = render_gaussians(points, sigmas, HEATMAP_SIZE_HW)
    weights = torch.ones(BATCH, NUM_KEYPOINTS)
    assert abs(simulated_heatmap_loss(points, sigmas, heat, weights).item()) < 1e-7


# Gradients, masks and look-ups of every term


@pytest.mark.parametrize("kind", ["smooth_l1", "l1"])
def test_regression_gradients_match_finite_differences(kind: RegressionKind) -> None:
    """Both kinds, with masked keypoints."""
    target, weights = _points(8) / 12, _some_weights()
    keypoints = (_points() / 12).requires_grad_()
    assert gradcheck(lambda x: regression_loss(x, target, weights, kind), (keypoints,))


@pytest.mark.parametrize("sigma_floor", [0.0, 0.8])
def test_simulated_heatmap_gradients_match_finite_differences(sigma_floor: float) -> None:
    """In points and in sigmas, from stored maps, with masked keypoints."""
    heatmaps, scale = _stored_heatmaps()
    inputs = (_points().requires_grad_(), _sigmas().requires_grad_())
    weights = _some_weights()
    assert gradcheck(
        lambda p, s: simulated_heatmap_loss(p, s, heatmaps, weights, scale, sigma_floor), inputs
    )


def test_confidence_gradients_match_finite_differences_and_leave_the_points_alone() -> None:
    """Scores chase the heat; points do not."""
    heatmaps, scale = _stored_heatmaps()
    points, weights = _points().requires_grad_(), _some_weights()
    scores = _uniform(0, 1, BATCH, NUM_KEYPOINTS).requires_grad_()
    assert gradcheck(lambda s: confidence_loss(s, points, heatmaps, weights, scale), (scores,))
    loss = confidence_loss(scores, points, heatmaps, weights, scale)
    assert torch.autograd.grad(loss, points, allow_unused=True) == (None,)


def test_heatmap_gradients_match_finite_differences() -> None:
    """With masked keypoints."""
    heatmaps = _float_heatmaps().requires_grad_()
    target, weights = _float_heatmaps(12), _some_weights()
    assert gradcheck(lambda x: heatmap_loss(x, target, weights), (heatmaps,), fast_mode=True)


def test_l1_and_smooth_l1_are_means_over_the_full_count() -> None:
    """Masked keypoints count in the divisor, as in the paper."""
    keypoints = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])
    target = torch.tensor([[[0.3, 0.6], [0.9, 0.9]]])
    weights = torch.tensor([[1.0, 0.0]])
    l1 = regression_loss(keypoints, target, weights, "l1")
    smooth = regression_loss(keypoints, target, weights, "smooth_l1")
    assert l1.item() == pytest.approx((0.2 + 0.4) / 4)
    assert smooth.item() == pytest.approx(0.5 * (0.2**2 + 0.4**2) / 4)


def test_heat_is_read_from_the_nearest_cell_and_is_zero_outside() -> None:
    """Cell (row, column) holds the points within half a cell of (x, y) = (column, row)."""
    heatmaps = torch.arange(12, dtype=torch.uint8).view(1, 1, 4, 3).expand(1, 7, 4, 3)
    scale = torch.full((1, 7), 0.5)
    nan = float("nan")
    places = [[1.4, 2.6], [-0.4, 0.0], [-0.6, 0.0], [2.4, 3.4], [2.6, 0.0], [0.0, 3.6], [nan, 1.0]]
    heat = heat_at(torch.tensor([places]), heatmaps, scale)
    assert heat[0].tolist() == [0.5 * (3 * 3 + 1), 0.0, 0.0, 0.5 * 11, 0.0, 0.0, 0.0]
    assert heat_at(torch.tensor([places[:1]]), heatmaps[:, :1]).item() == 10


@pytest.mark.parametrize("kind", ["smooth_l1", "l1"])
def test_unlabelled_keypoints_do_not_exist(kind: RegressionKind) -> None:
    """NaN targets, NaN scales and wild maps behind weight 0 change no term and no gradient."""
    config, output, clean = LossConfig(regression_kind=kind), _output(), _targets()
    is_masked = clean.keypoint_weights == 0
    assert clean.heatmaps is not None
    assert clean.scale is not None
    dirty = replace(
        clean,
        keypoints=clean.keypoints.masked_fill(is_masked[..., None], math.nan),
        heatmaps=clean.heatmaps.masked_fill(is_masked[..., None, None], 255),
        scale=clean.scale.masked_fill(is_masked, math.nan),
    )
    losses = [student_loss(output, targets, config, 0) for targets in (clean, dirty)]
    assert losses[0].total.isfinite()
    assert losses[0].terms == losses[1].terms
    first, second = (torch.autograd.grad(loss.total, output) for loss in losses)
    for actual, expected in zip(first, second, strict=True):
        assert torch.equal(actual, expected)
        assert (actual[is_masked] == 0).all()
        assert (actual[~is_masked] != 0).any()


def test_nan_float_maps_behind_weight_zero_reach_no_gradient() -> None:
    """Float maps, of a teacher in training or of a student, may be NaN where nothing is known."""
    weights = _some_weights()
    is_masked = (weights == 0)[..., None, None]
    dirty = _float_heatmaps().masked_fill(is_masked, math.nan)
    points, drawn = _points().requires_grad_(), _float_heatmaps(13).requires_grad_()
    simulated = simulated_heatmap_loss(points, _sigmas(), dirty, weights)
    taught = heatmap_loss(drawn, dirty, weights)
    confidence = confidence_loss(weights, points, dirty, weights)
    for loss in (simulated, taught, confidence):
        assert loss.isfinite()
    assert torch.autograd.grad(simulated, points)[0].isfinite().all()
    assert torch.autograd.grad(taught, drawn)[0].isfinite().all()


def test_people_of_a_batch_do_not_mix() -> None:
    """The loss of a batch is the mean of the losses of its people, mask or no mask.

    The released code broadcast the mask over the batch, so that people masked each other.
    """
    output, targets, config = _output(), _targets(), LossConfig()
    together = student_loss(output, targets, config, 0)
    alone = []
    for b in range(BATCH):
        assert targets.heatmaps is not None
        assert targets.scale is not None
        person = replace(
            targets,
            keypoints=targets.keypoints[b : b + 1],
            keypoint_weights=targets.keypoint_weights[b : b + 1],
            heatmaps=targets.heatmaps[b : b + 1],
            scale=targets.scale[b : b + 1],
        )
        part = StudentOutput(*(tensor[b : b + 1] for tensor in output))
        alone.append(student_loss(part, person, config, 0).terms)
    for name, value in together.terms.items():
        torch.testing.assert_close(value, torch.stack([x[name] for x in alone]).mean())


# The student's loss as a whole


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
    loss = student_loss(_output(), _targets(), config, 0)
    assert set(loss.terms) == names
    expected = sum(getattr(config, name) * value.item() for name, value in loss.terms.items())
    assert loss.total.item() == pytest.approx(expected)
    assert not any(term.requires_grad for term in loss.terms.values())


def test_student_loss_gradients_match_finite_differences() -> None:
    """All terms together, in all outputs that they teach."""
    output, targets = _output(), _targets()
    config = LossConfig(simulated_heatmap=2.0, confidence=0.0, sigma_floor=0.3)

    def total(keypoints: Tensor, sigmas: Tensor) -> Tensor:
        return student_loss(
            output._replace(keypoints=keypoints, sigmas=sigmas), targets, config, 0
        )[0]

    assert gradcheck(total, (output.keypoints, output.sigmas))


def test_a_teacher_may_speak_where_the_ground_truth_is_silent() -> None:
    """The switch gives unlabelled keypoints to the two distilled terms and not to regression."""
    output, everyone = _output(), _targets(torch.ones(BATCH, NUM_KEYPOINTS, dtype=torch.float64))
    switched = student_loss(output, _targets(), LossConfig(distil_unlabelled_keypoints=True), 0)
    masked = student_loss(output, _targets(), LossConfig(), 0)
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
    first = student_loss(_output(), _targets(), config, 0)
    assert first.total.item() == pytest.approx(first.terms["regression"].item())
    assert set(first.terms) == {"regression", "simulated_heatmap", "confidence"}


def test_half_precision_outputs_are_compared_in_float32() -> None:
    """Mixed precision reaches no loss: the total is float32 and close to the exact one."""
    exact = student_loss(_output(), _targets(), LossConfig(), 0).total
    halves = StudentOutput(*(tensor.bfloat16() for tensor in _output()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = student_loss(halves, _targets(), LossConfig(), 0).total
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(exact.item(), rel=0.02)


# Where the simulated heatmap loss pulls the student to

FRAMES = {
    "msra": [[0.25, 0.0, 0.0], [0.0, 0.25, 0.0]],
    "half-pixel": [[0.25, 0.0, -0.375], [0.0, 0.25, -0.375]],
    "udp": [[11 / 47, 0.0, 0.0], [0.0, 15 / 63, 0.0]],
}
TRUTH_PX = torch.tensor([[[20.3, 33.7], [26.9, 18.2], [14.6, 41.0]]], dtype=torch.float64)


def _teacher_that_knows_the_truth(affine: list[list[float]]) -> TrainingTargets:
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
    return TrainingTargets(
        keypoints=TRUTH_PX / torch.tensor([48.0, 64.0]),
        keypoint_weights=torch.ones(1, 3, dtype=torch.float64),
        crop_to_heatmap=torch.tensor(affine, dtype=torch.float64),
        input_size_hw=INPUT_SIZE_HW,
        heatmaps=(heat / scale[..., None, None]).round().to(torch.uint8),
        scale=scale,
    )


def _cells_off_after_descent(targets: TrainingTargets) -> float:
    """Minimise the simulated heatmap term alone, and measure the miss at the *true* affine."""
    keypoints = (targets.keypoints + 0.01).requires_grad_()
    log_sigmas = torch.full_like(keypoints, math.log(1.5)).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [keypoints, log_sigmas], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )
    config = LossConfig(regression=0.0, confidence=0.0)

    def closure() -> float:
        output = StudentOutput(keypoints, torch.zeros(1, 3), log_sigmas.exp())
        total = student_loss(output, targets, config, 0).total
        keypoints.grad, log_sigmas.grad = torch.autograd.grad(total, [keypoints, log_sigmas])
        return total.item()

    optimizer.step(closure)
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
    shifted = replace(targets, crop_to_heatmap=targets.crop_to_heatmap + shift)
    assert _cells_off_after_descent(shifted) > 0.4


def test_transposed_maps_move_the_best_student() -> None:
    """Swapping x and y in what the teacher drew is seen as cells, not as noise."""
    targets = _teacher_that_knows_the_truth(FRAMES["msra"])
    assert targets.heatmaps is not None
    swapped = targets.heatmaps[..., :12, :12].transpose(-1, -2)
    heatmaps = torch.zeros_like(targets.heatmaps)
    heatmaps[..., :12, :12] = swapped
    assert _cells_off_after_descent(replace(targets, heatmaps=heatmaps)) > 0.4


def test_centre_and_look_up_go_through_one_affine() -> None:
    """At the truth the Gaussian peaks in the cell whose heat the score learns, in every frame."""
    for affine in FRAMES.values():
        targets = _teacher_that_knows_the_truth(affine)
        assert targets.heatmaps is not None
        points = keypoints_to_heatmap(targets.keypoints, targets)
        column, row = gaussian_factors(points, torch.ones_like(points), HEATMAP_SIZE_HW)
        drawn_peak = column.argmax(-1) * HEATMAP_SIZE_HW[1] + row.argmax(-1)
        assert torch.equal(drawn_peak, targets.heatmaps.flatten(-2).int().argmax(-1))
        heat = heat_at(points, targets.heatmaps, targets.scale)
        assert targets.scale is not None
        torch.testing.assert_close(heat, 255 * targets.scale)


def test_a_rotated_affine_is_applied_as_a_whole() -> None:
    """x and y may mix on the way to the heatmap: nothing assumes a diagonal affine."""
    affine = torch.tensor([[0.1, 0.2, 1.0], [-0.3, 0.25, 2.0]], dtype=torch.float64)
    targets = replace(_targets(), crop_to_heatmap=affine)
    points = keypoints_to_heatmap(torch.tensor([[[0.5, 0.25]]], dtype=torch.float64), targets)
    x_px, y_px = 24.0, 16.0
    expected = [0.1 * x_px + 0.2 * y_px + 1.0, -0.3 * x_px + 0.25 * y_px + 2.0]
    assert points[0, 0].tolist() == pytest.approx(expected)


# Refusals


def test_distillation_without_a_teacher_is_refused() -> None:
    """A configured term never disappears in silence."""
    targets = replace(_targets(), heatmaps=None, scale=None)
    with pytest.raises(ConfigError, match=r"confidence = 0.01 need a teacher's heatmaps"):
        student_loss(_output(), targets, LossConfig(), 0)
    alone = LossConfig(simulated_heatmap=0.0, confidence=0.0)
    assert set(student_loss(_output(), targets, alone, 0).terms) == {"regression"}


def test_stored_heatmaps_without_their_scale_are_refused() -> None:
    """Raw bytes are not heat: without a scale they would be taken for peaks of 255."""
    with pytest.raises(ConfigError, match=r"got torch.uint8 without a scale"):
        student_loss(_output(), replace(_targets(), scale=None), LossConfig(), 0)


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
