"""The rotated Gaussian: against torch's, its sixth channel, and that a checkpoint knows of it."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import MultivariateNormal

from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES
from pipeline.errors import ConfigError
from pipeline.models.heads import RegressionHead, StudentOutput
from pipeline.models.pose_networks import build_student
from pipeline.runs.checkpoints import CheckpointInfo, load_network, save_weights
from pipeline.training.covariance_losses import covariance_loss
from pipeline.training.loss_parts import LossContext
from pipeline.training.losses import StudentCriterion
from pipeline.training.settings import LossConfig
from tests.support.student_outputs import student_batch, student_output, uniform


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    points, sigmas = uniform(0, 10, 2, 3, 2, seed=1), uniform(0.5, 3, 2, 3, 2, seed=2)
    return points, sigmas, uniform(-2, 2, 2, 3, seed=3)


def _covariances(sigmas: Tensor, shears: Tensor) -> Tensor:
    """The covariances as the docstring gives them: standard deviations and correlation."""
    spread = (1 + shears.square()).sqrt()
    x, y = sigmas[..., 0] * spread, sigmas[..., 1]
    off = -shears / spread * x * y
    rows = [torch.stack((x.square(), off), -1), torch.stack((off, y.square()), -1)]
    return torch.stack(rows, -2)


def test_the_loss_is_the_likelihood_under_the_described_normal_distribution() -> None:
    points, sigmas, shears = _inputs()
    targets, weights = uniform(0, 10, 2, 3, 2, seed=4), uniform(0, 1, 2, 3, seed=5)
    normal = MultivariateNormal(points, _covariances(sigmas, shears))
    log_likelihood = normal.log_prob(targets) + math.log(2 * math.pi)  # type: ignore[no-untyped-call]
    expected = -(weights * log_likelihood).mean()
    actual = covariance_loss(points, sigmas, shears, targets, weights)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def test_the_floor_adds_in_quadrature() -> None:
    points, sigmas, shears = _inputs()
    targets, weights = uniform(0, 10, 2, 3, 2, seed=4), torch.ones(2, 3).double()
    wide = (sigmas.square() + 0.7**2).sqrt()
    floored = covariance_loss(points, sigmas, shears, targets, weights, 0.7)
    torch.testing.assert_close(floored, covariance_loss(points, wide, shears, targets, weights))


def test_gradients_match_finite_differences() -> None:
    targets, weights = uniform(0, 10, 2, 3, 2, seed=4), uniform(0, 1, 2, 3, seed=5)

    def loss(points: Tensor, sigmas: Tensor, shears: Tensor) -> Tensor:
        return covariance_loss(points, sigmas, shears, targets, weights, 0.3)

    assert gradcheck(loss, tuple(each.requires_grad_() for each in _inputs()))


# In the criterion


def _criterion() -> StudentCriterion:
    config = LossConfig(regression=0, simulated_heatmap=0, confidence=0, covariance=1)
    return StudentCriterion(config, 3, LossContext(heatmap_size_hw=(16, 12)))


def _output() -> StudentOutput:
    return student_output()._replace(shears=uniform(-2, 2, 2, 3, seed=3).requires_grad_())


def test_errors_are_measured_in_the_cells_of_sigma() -> None:
    """Of a crop 48 wide and 64 high with heatmaps of 16 x 12 a cell is 4 pixels."""
    output, batch = _output(), student_batch()
    assert output.shears is not None
    points = output.keypoints * torch.tensor([48.0, 64.0]).double() / 4
    expected = covariance_loss(
        points, output.sigmas, output.shears, batch.keypoints / 4, batch.keypoint_weights
    )
    torch.testing.assert_close(_criterion()(output, batch, 0).total, expected)


def test_unlabelled_keypoints_leave_no_trace() -> None:
    output, batch = _output(), student_batch()
    assert output.shears is not None
    is_masked = batch.keypoint_weights == 0
    dirty = replace(batch, keypoints=batch.keypoints.masked_fill(is_masked[..., None], math.nan))
    inputs = (output.keypoints, output.sigmas, output.shears)
    found, clean = (
        torch.autograd.grad(_criterion()(output, each, 0).total, inputs) for each in (dirty, batch)
    )
    for one, other in zip(found, clean, strict=True):
        assert torch.equal(one, other)
        assert (one[is_masked] == 0).all()
        assert (one[~is_masked] != 0).any()


def test_half_precision_stops_at_the_outputs() -> None:
    halves = StudentOutput(*(x.detach().bfloat16() for x in _output()[:3]))  # type: ignore[arg-type]
    halves = halves._replace(shears=torch.ones(2, 3).bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _criterion()(halves, student_batch(), 0).total.dtype == torch.float32


def test_a_student_without_the_channel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs a student with the channel of the shear"):
        _criterion()(student_output(), student_batch(), 0)


# The sixth channel


def test_the_channel_comes_last_starts_at_0_and_changes_no_other() -> None:
    torch.manual_seed(0)
    head, tokens = RegressionHead(16), torch.randn(2, 3, 16)
    before, state = head(tokens), torch.get_rng_state()
    head.add_shear()
    after = head(tokens)
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(before[:3], after[:3], strict=True):
        torch.testing.assert_close(one, other)
    assert (after.shears == 0).all()
    with torch.no_grad():
        head.linear.bias[5] = 1.5
    assert torch.equal(head(tokens).shears, torch.full((2, 3), 1.5))


def test_a_checkpoint_knows_of_the_channel_and_one_without_it_loads_as_before(
    tmp_path: Path,
) -> None:
    for with_shear in (True, False):
        torch.manual_seed(0)
        network = build_student("distilpose-xs", 17, with_shear)
        info = CheckpointInfo(
            kind="student", architecture="distilpose-xs", input_size_hw=(128, 96), padding=1.25,
            has_shear=network.has_shear, keypoint_names=COCO_KEYPOINT_NAMES, edges=(),
            flip_indices=tuple(range(17)), sigmas=(), upper_body=(), lower_body=(),
            score_rule="one", scored_keypoints=(), seed=0, epoch=0, step=0,
        )  # fmt: skip
        save_weights(tmp_path / "a.safetensors", network, info)
        loaded, _ = load_network(tmp_path / "a.safetensors")
        assert loaded.has_shear is with_shear
        for name, tensor in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)
    assert (
        "has_shear"
        not in CheckpointInfo.model_validate(
            info.model_dump(exclude={"has_shear"})
        ).model_fields_set
    )
