"""Residual log-likelihood against the formula, and the flow as a density."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from pipeline.training.batch import TrainingBatch
from pipeline.training.loss_parts import LossContext
from pipeline.training.losses import StudentCriterion
from pipeline.training.residual_flow import ResidualFlow, residual_likelihood_loss
from pipeline.training.settings import LossConfig
from tests.support.student_outputs import student_batch, student_output, uniform


@pytest.fixture
def flow() -> ResidualFlow:
    """A flow that bends space visibly; a new one hardly does."""
    torch.manual_seed(3)
    flow = ResidualFlow().double()
    for weight in flow.parameters():
        nn.init.normal_(weight, std=0.2)
    return flow


def _log_density(flow: ResidualFlow, error: Tensor) -> Tensor:
    """The published recipe, written for one error: masks, coupling, base density."""
    masks = [(0.0, 1.0), (1.0, 0.0)] * 3
    z, log_det = error, torch.zeros((), dtype=error.dtype)
    for i in reversed(range(6)):
        mask = torch.tensor(masks[i], dtype=error.dtype)
        kept = mask * z
        s, t = (nets[i](kept) * (1 - mask) for nets in (flow.scales, flow.shifts))
        z = (1 - mask) * (z - t) * torch.exp(-s) + kept
        log_det = log_det - s.sum()
    return -0.5 * (z @ z) - math.log(2 * math.pi) + log_det


def test_the_loss_is_the_published_formula(flow: ResidualFlow) -> None:
    """-log phi(e) + log s + log(2 s) + |e|, keypoint by keypoint and axis by axis."""
    points, targets = uniform(0, 10, 2, 3, 2, seed=1), uniform(0, 10, 2, 3, 2, seed=2)
    sigmas, weights = uniform(0.5, 4, 2, 3, 2, seed=3), uniform(0, 1, 2, 3, seed=4)
    total = 0.0
    for person in range(2):
        for k in range(3):
            error = (points[person, k] - targets[person, k]) / sigmas[person, k]
            log_phi = _log_density(flow, error).item()
            for axis in range(2):
                s, e = sigmas[person, k, axis].item(), error[axis].item()
                term = -log_phi + math.log(s) + math.log(2 * s) + abs(e)
                total += weights[person, k].item() * term
    actual = residual_likelihood_loss(points, sigmas, targets, weights, flow)
    assert actual.item() == pytest.approx(total / 12, rel=1e-7)


def test_the_flows_density_integrates_to_1(flow: ResidualFlow) -> None:
    places = torch.linspace(-16, 16, 201, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1)
    with torch.no_grad():
        densities = flow(grid).exp()
    cell = (places[1] - places[0]).item() ** 2
    assert densities.sum().item() * cell == pytest.approx(1.0, abs=1e-3)
    normal = torch.exp(-0.5 * grid.square().sum(-1)) / (2 * math.pi)
    assert (densities - normal).abs().max() > 0.01  # it is no normal distribution


def test_the_volume_change_is_that_of_the_maps_derivative(flow: ResidualFlow) -> None:
    """Written by hand from finite differences of the map."""
    for error in uniform(-4, 4, 5, 2, seed=7):
        columns = []
        for axis in range(2):
            step = 1e-6 * torch.nn.functional.one_hot(torch.tensor(axis), 2).double()
            ends = [flow.to_base(error + sign * step)[0] for sign in (1, -1)]
            columns.append((ends[0] - ends[1]) / 2e-6)
        derivative = torch.stack(columns, dim=-1)
        _, log_volume = flow.to_base(error)
        torch.testing.assert_close(derivative.det().abs().log(), log_volume, atol=1e-6, rtol=1e-6)


def test_a_new_flow_is_nearly_the_normal_density() -> None:
    """The published initialisation: six layers of 64, close to the identity."""
    torch.manual_seed(0)
    flow = ResidualFlow()
    shapes = [tuple(weight.shape) for weight in flow.scales[0].parameters()]
    assert shapes == [(64, 2), (64,), (64, 64), (64,), (2, 64), (2,)]
    assert len(flow.scales) == len(flow.shifts) == 6
    errors = uniform(-1, 1, 20, 2).float()
    normal = -0.5 * errors.square().sum(-1) - math.log(2 * math.pi)
    assert (flow(errors) - normal).abs().max() < 1.0
    bound = 0.01 * math.sqrt(6 / (64 + 64))  # Xavier's, with the published gain
    widest = max(layer[2].weight.abs().max().item() for layer in (*flow.scales, *flow.shifts))
    assert widest == pytest.approx(bound, rel=0.01)


def test_gradients_match_finite_differences(flow: ResidualFlow) -> None:
    targets, weights = uniform(0, 10, 2, 3, 2, seed=2), uniform(0, 1, 2, 3, seed=4)
    inputs = (uniform(0, 10, 2, 3, 2, seed=1), uniform(0.5, 4, 2, 3, 2, seed=3))
    assert gradcheck(
        lambda points, sigmas: residual_likelihood_loss(
            points, sigmas, targets, weights, flow, 0.4
        ),
        tuple(each.requires_grad_() for each in inputs),
    )


def test_with_a_flat_flow_the_best_sigma_is_half_the_error() -> None:
    """2 log s + |d| / s is smallest at s = |d| / 2; a floor adds in quadrature."""
    for floor in (0.0, 0.5):
        s = torch.full((1, 1, 2), math.sqrt(1.5**2 - floor**2), requires_grad=True)
        points, targets = torch.zeros(1, 1, 2), torch.full((1, 1, 2), 3.0)
        loss = residual_likelihood_loss(points, s, targets, torch.ones(1, 1), _Flat(), floor)
        assert torch.autograd.grad(loss, s)[0].abs().max() < 1e-6


class _Flat(nn.Module):
    def forward(self, errors: Tensor) -> Tensor:
        return torch.zeros_like(errors[..., 0])


# In the criterion


def _criterion(**settings: object) -> StudentCriterion:
    alone = {"simulated_heatmap": 0, "confidence": 0, "regression_kind": "rle"}
    config = LossConfig.model_validate({**alone, **settings})
    torch.manual_seed(1)
    return StudentCriterion(config, 3, LossContext(heatmap_size_hw=(16, 12))).double()


def test_errors_are_measured_in_the_cells_of_sigma() -> None:
    """Of a crop 48 wide and 64 high with heatmaps of 16 x 12 a cell is 4 pixels."""
    output, batch, criterion = student_output(), student_batch(), _criterion()
    assert criterion.parts.flow is not None
    points = output.keypoints * torch.tensor([48.0, 64.0]).double() / 4
    expected = residual_likelihood_loss(
        points, output.sigmas, batch.keypoints / 4, batch.keypoint_weights, criterion.parts.flow
    )
    torch.testing.assert_close(criterion(output, batch, 0).total, expected)


def test_the_teachers_keypoints_are_regressed_with_the_same_flow() -> None:
    output, batch = student_output(), student_batch()
    both = _criterion(teacher_regression=1.0)
    assert both(output, batch, 0).terms.keys() == {"regression", "teacher_regression"}
    alone = _criterion(regression=0, teacher_regression=1.0, teacher_regression_on="all")
    assert batch.teacher is not None
    assert batch.teacher.keypoints is not None
    assert batch.teacher.confidences is not None
    weights = batch.teacher.confidences * (batch.teacher.confidences >= 0.2)
    as_labels: TrainingBatch = replace(
        batch, keypoints=batch.teacher.keypoints, keypoint_weights=weights
    )
    found, expected = alone(output, batch, 0), _criterion()(output, as_labels, 0)
    torch.testing.assert_close(found.total, expected.total)


def test_unlabelled_keypoints_leave_no_trace() -> None:
    """NaN targets behind weight 0 reach neither points, sigmas nor the flow."""
    output, batch, criterion = student_output(), student_batch(), _criterion()
    is_masked = batch.keypoint_weights == 0
    dirty = replace(batch, keypoints=batch.keypoints.masked_fill(is_masked[..., None], math.nan))
    inputs = [output.keypoints, output.sigmas, *criterion.parameters()]
    found, clean = (
        torch.autograd.grad(criterion(output, each, 0).total, inputs) for each in (dirty, batch)
    )
    for one, other in zip(found, clean, strict=True):
        assert torch.equal(one, other)
    assert (found[0][is_masked] == 0).all()
    assert (found[1][is_masked] == 0).all()
    nothing = criterion(output, student_batch(torch.zeros(2, 3).double()), 0)
    assert nothing.total == 0


def test_the_flow_is_trained_with_the_criterion_and_only_where_it_is_asked_for() -> None:
    criterion = _criterion()
    loss = criterion(student_output(), student_batch(), 0)
    gradients = torch.autograd.grad(loss.total, list(criterion.parameters()))
    assert sum((gradient != 0).any().item() for gradient in gradients) == len(gradients)
    assert all(name.startswith("parts.flow.") for name in criterion.state_dict())
    assert not list(_criterion(regression_kind="l1").parameters())
    assert not list(_criterion(regression=0, confidence=1).parameters())


def test_mixed_precision_stops_at_the_outputs() -> None:
    half, scores, sigmas = (tensor.detach().bfloat16() for tensor in student_output()[:3])
    halves = student_output()._replace(keypoints=half, scores=scores, sigmas=sigmas)
    floats = halves._replace(keypoints=half.float(), scores=scores.float(), sigmas=sigmas.float())
    criterion = _criterion().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = criterion(halves, student_batch(), 0)
    assert mixed.total.dtype == torch.float32
    assert mixed.terms == criterion(floats, student_batch(), 0).terms
