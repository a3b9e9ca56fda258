"""The divergence from a teacher's moments: against torch's and written out, and its masks."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import Normal, kl_divergence

from pipeline.training.heatmap_losses import render_gaussians, simulated_heatmap_loss
from pipeline.training.losses import StudentCriterion
from pipeline.training.moment_losses import Moments, moments_loss, peak_moments
from pipeline.training.settings import LossConfig
from tests.support.student_outputs import student_batch, student_output, uniform

SIZE_HW = (16, 12)


def _moments() -> Moments:
    is_whole = torch.tensor([[True, True, False], [True, True, True]])
    return Moments(uniform(3, 9, 2, 3, 2, seed=1), uniform(0.8, 2.0, 2, 3, 2, seed=2), is_whole)


def _maps(points: Tensor, sigma: float = 1.0) -> Tensor:
    return render_gaussians(points, torch.full_like(points, sigma), SIZE_HW)


def test_the_divergence_is_that_of_two_normal_distributions_of_each_axis() -> None:
    target, weights = _moments(), torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]).double()
    points, sigmas = uniform(0, 12, 2, 3, 2, seed=3), uniform(0.5, 4, 2, 3, 2, seed=4)
    by_axis = kl_divergence(Normal(target.means, target.sigmas), Normal(points, sigmas))
    expected = (by_axis.sum(-1) * weights * target.is_whole).mean()
    actual = moments_loss(points, sigmas, target, weights)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("sigma_floor", [0.0, 0.8])
def test_its_gradients_match_finite_differences(sigma_floor: float) -> None:
    inputs = (uniform(0, 12, 2, 3, 2, seed=3), uniform(0.5, 4, 2, 3, 2, seed=4))
    weights = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]).double()
    assert gradcheck(
        lambda points, sigmas: moments_loss(points, sigmas, _moments(), weights, sigma_floor),
        tuple(tensor.requires_grad_() for tensor in inputs),
    )


def test_the_best_sigma_at_a_distance_holds_the_distance() -> None:
    """sqrt(t^2 + d^2), with the floor in quadrature."""
    target = Moments(torch.zeros(1, 1, 2), torch.full((1, 1, 2), 1.5), torch.ones(1, 1).bool())
    points = torch.tensor([[[3.0, -4.0]]])
    for floor in (0.0, 1.0):
        best = (1.5**2 + points.square() - floor**2).sqrt().requires_grad_()
        loss = moments_loss(points, best, target, torch.ones(1, 1), floor)
        assert torch.autograd.grad(loss, best)[0].abs().max() < 1e-6


def test_its_pull_grows_with_the_distance_where_that_of_the_simulated_heatmap_vanishes() -> None:
    heatmaps = render_gaussians(torch.full((1, 1, 2), 20.0), torch.ones(1, 1, 2), (40, 40))
    pulls = []
    for distance in (2.0, 7.0):
        point = torch.tensor([[[20.0, 20.0 - distance]]], requires_grad=True)
        sigmas, weights = torch.ones(1, 1, 2), torch.ones(1, 1)
        losses = (
            moments_loss(point, sigmas, peak_moments(heatmaps), weights),
            simulated_heatmap_loss(point, sigmas, heatmaps, weights),
        )
        pulls.append([-torch.autograd.grad(loss, point)[0][0, 0, 1].item() for loss in losses])
    (near, simulated_near), (far, simulated_far) = pulls
    assert far == pytest.approx(near * 7 / 2, rel=1e-3)
    assert 0 <= simulated_far < 1e-4 * simulated_near


def test_moments_are_those_of_the_cells_around_the_peak() -> None:
    """Written out cell by cell; a second, lower peak far away does not count."""
    heatmaps = _maps(torch.tensor([[[5.3, 7.8]]]).double(), 1.3)
    heatmaps[0, 0, 15, 11] = 0.9 * heatmaps.max()
    cells = [(row, column) for row in range(5, 12) for column in range(2, 9)]
    heat = [heatmaps[0, 0, row, column].item() for row, column in cells]
    means, sigmas, is_whole = peak_moments(heatmaps)
    for axis, places in enumerate(zip(*[(column, row) for row, column in cells], strict=True)):
        mean = sum(h * x for h, x in zip(heat, places, strict=True)) / sum(heat)
        spread = sum(h * (x - mean) ** 2 for h, x in zip(heat, places, strict=True)) / sum(heat)
        assert means[0, 0, axis].item() == pytest.approx(mean)
        assert sigmas[0, 0, axis].item() == pytest.approx(math.sqrt(spread))
    assert is_whole.all()


def test_a_gaussian_of_sigma_2_is_measured_as_the_docstring_says() -> None:
    points = torch.tensor([[[20.0, 20.499]]], dtype=torch.float64)
    heatmaps = render_gaussians(points, torch.full_like(points, 2.0), (40, 40))
    means, sigmas, _ = peak_moments(heatmaps)
    assert sigmas[0, 0, 0].item() == pytest.approx(1.64, abs=0.005)
    assert means[0, 0].tolist() == pytest.approx([20.0, 20.499 - 0.17], abs=0.01)


def test_moments_do_not_depend_on_the_unit_of_heat() -> None:
    heatmaps = _maps(torch.tensor([[[5.3, 7.8]]]).double(), 1.3)
    in_bytes = (255 * heatmaps).round().to(torch.uint8)
    for actual, expected in zip(peak_moments(in_bytes), peak_moments(heatmaps), strict=True):
        torch.testing.assert_close(actual.double(), expected.double(), atol=0.02, rtol=0)


def test_heat_in_one_cell_has_the_spread_of_a_cell() -> None:
    heatmaps = torch.zeros(1, 1, *SIZE_HW)
    heatmaps[0, 0, 8, 6] = 1.0
    means, sigmas, _ = peak_moments(heatmaps)
    assert means.tolist() == [[[6.0, 8.0]]]
    assert sigmas[0, 0].tolist() == pytest.approx([math.sqrt(1 / 12)] * 2)


@pytest.mark.parametrize(
    ("point", "is_whole"),
    [((6, 8), True), ((3, 8), True), ((2, 8), False), ((9, 8), False), ((6, 2), False),
     ((6, 13), False), ((8, 12), True)],
)  # fmt: skip
def test_a_peak_whose_cells_are_cut_by_the_border_has_no_moments(
    point: tuple[int, int], is_whole: bool
) -> None:
    heatmaps = _maps(torch.tensor([[point]]).double())
    assert peak_moments(heatmaps).is_whole.item() is is_whole


def test_unknown_cells_and_maps_without_heat_have_no_moments() -> None:
    points = torch.tensor([[[6.0, 8.0], [6.0, 8.0]]] * 2)
    heatmaps = _maps(points)
    heatmaps[1, 1] = 0.0
    is_known = torch.ones(2, *SIZE_HW, dtype=torch.bool)
    is_known[0, 11, 9] = False  # the corner of the 7 x 7 cells
    is_known[1, 12, 9] = False  # beside them
    heatmaps *= is_known[:, None]
    assert peak_moments(heatmaps, is_known).is_whole.tolist() == [[False, False], [True, False]]


def test_what_is_not_distilled_leaves_no_trace() -> None:
    """NaN maps behind weight 0 change neither the loss nor a gradient, and give none."""
    batch, output = student_batch(), student_output()
    criterion = StudentCriterion(LossConfig(simulated_heatmap=0, confidence=0, moments=1.0), 3)
    assert batch.teacher is not None
    assert batch.teacher.heatmaps is not None
    heat = batch.teacher.heatmaps.double()
    is_masked = batch.keypoint_weights == 0
    gradients = []
    for dirt in (0.0, math.nan):
        heatmaps = heat.masked_fill(is_masked[..., None, None], dirt)
        teacher = replace(batch.teacher, heatmaps=heatmaps, scale=None)
        loss = criterion(output, replace(batch, teacher=teacher), 0)
        assert loss.terms["moments"].isfinite()
        gradients.append(torch.autograd.grad(loss.total, (output.keypoints, output.sigmas)))
    for clean, dirty in zip(*gradients, strict=True):
        assert torch.equal(clean, dirty)
    assert (gradients[0][1][is_masked] == 0).all()
    assert (gradients[0][1][~is_masked] != 0).any()


def test_the_term_is_absent_at_weight_0_and_reads_heatmaps() -> None:
    assert "moments" not in LossConfig().terms
    assert LossConfig(simulated_heatmap=0, confidence=0, moments=1).reads == {"heatmaps"}
    assert "moments" not in LossConfig(moments=1).without_teacher().terms
