"""Each loss term against its dense, plain statement, its finite differences and its mask."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from pipeline.training.heatmap_losses import (
    confidence_loss,
    heat_at,
    heatmap_loss,
    render_gaussians,
    simulated_heatmap_loss,
)
from pipeline.training.regression_losses import regression_loss
from pipeline.training.settings import RegressionKind

HEATMAP_SIZE_HW = (16, 12)
BATCH, NUM_KEYPOINTS = 2, 3


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
    ones = torch.ones_like(scale)
    for plain_scale in (None, ones):
        plain = simulated_heatmap_loss(_points(), _sigmas(), heat, _some_weights(), plain_scale)
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
    (gradient,) = torch.autograd.grad(loss, (points,), allow_unused=True)
    assert gradient is None


def test_confidence_is_the_mean_distance_of_scores_and_heat() -> None:
    """Heat is uint8 times scale; keypoints outside the map have heat 0; masked ones count."""
    heatmaps = torch.full((1, 3, 4, 3), 100, dtype=torch.uint8)
    scale = torch.full((1, 3), 0.005)
    points = torch.tensor([[[1.0, 2.0], [9.0, 2.0], [1.0, 1.0]]])
    scores = torch.tensor([[0.9, 0.3, 7.0]])
    loss = confidence_loss(scores, points, heatmaps, torch.tensor([[1.0, 1.0, 0.0]]), scale)
    assert loss.item() == pytest.approx((abs(0.9 - 0.5) + abs(0.3 - 0.0)) / 3)


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
