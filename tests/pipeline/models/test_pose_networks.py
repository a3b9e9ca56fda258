"""The networks by name: their sizes, shapes and refusals, and the public parameter inventory."""

import ast
import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.models import STUDENTS, TEACHERS, build_network, build_student, build_teacher
from pipeline.models.heads import RegressionHead
from pipeline.models.pose_networks import PoseNetwork, RegressionStudent

EXTRA_SMALL = ["distilpose-xs", "tokenpose-xs"]
LARGE = {"distilpose-l", "tokenpose-l", "tokenpose-hrnet48"}  # test_large_networks.py


def _random_crops(network: PoseNetwork, batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 3, *network.input_size_hw, generator=generator)


@pytest.mark.parametrize("architecture", sorted(STUDENTS.keys() - LARGE))
@pytest.mark.parametrize("num_keypoints", [1, 14])
def test_students_answer_for_any_number_of_keypoints(architecture: str, num_keypoints: int) -> None:
    """A student's keypoints lie in the crop, its sigmas are positive, its scores are raw."""
    network = build_student(architecture, num_keypoints).eval()
    with torch.no_grad():
        output = network(_random_crops(network, 2))
    assert output.keypoints.shape == output.sigmas.shape == (2, num_keypoints, 2)
    assert output.scores.shape == (2, num_keypoints)
    assert ((output.keypoints > 0) & (output.keypoints < 1)).all()
    assert (output.sigmas > 0).all()
    assert network.num_keypoints == num_keypoints
    assert network.architecture == architecture


@pytest.mark.parametrize("architecture", sorted(TEACHERS.keys() - LARGE))
def test_teachers_draw_one_heatmap_per_keypoint(architecture: str) -> None:
    """A teacher's heatmaps have the size that it announces."""
    network = build_teacher(architecture, 5).eval()
    with torch.no_grad():
        heatmaps = network(_random_crops(network, 2)).heatmaps
    assert network.heatmap_size_hw == (64, 48)
    assert heatmaps.shape == (2, 5, 64, 48)


@pytest.mark.parametrize("architecture", EXTRA_SMALL)
def test_a_crop_is_answered_alike_alone_and_in_a_batch(architecture: str) -> None:
    """In evaluation mode, the other crops of a batch change nothing."""
    network = build_network(architecture, 3).eval()
    crops = _random_crops(network, 3)
    with torch.no_grad():
        together = network(crops, with_tokens=True).tokens
        alone = [network(crop[None], with_tokens=True).tokens for crop in crops]
    for index, tokens in enumerate(alone):
        for batched, single in zip(together, tokens, strict=True):
            torch.testing.assert_close(batched[index : index + 1], single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", EXTRA_SMALL)
def test_every_parameter_learns(architecture: str) -> None:
    """A sum over all outputs has a finite gradient, not all zero, for every parameter."""
    torch.manual_seed(0)
    network = build_network(architecture, 4)
    output = network(_random_crops(network, 4))
    tensors = [tensor for tensor in output if tensor is not None]
    total = torch.stack([tensor.square().sum() for tensor in tensors]).sum()
    names, parameters = zip(*network.named_parameters(), strict=True)
    for name, gradient in zip(names, torch.autograd.grad(total, parameters), strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name


def test_heads_see_the_tokens_that_are_handed_out() -> None:
    """The forward pass is the head on the keypoint tokens, which come out only when asked for."""
    network = build_network("distilpose-xs", 4).eval()
    assert isinstance(network, RegressionStudent)
    crops = _random_crops(network, 2)
    with torch.no_grad():
        output = network(crops)
        with_tokens = network(crops, with_tokens=True)
        tokens = with_tokens.tokens
        expected = network.head(tokens.keypoint_tokens)
    assert output.tokens is None
    assert tokens.visual_tokens.shape == (2, 48, 128)
    assert network.token_shape == (128, (8, 6))
    assert torch.equal(output.keypoints, expected.keypoints)
    assert torch.equal(output.keypoints, with_tokens.keypoints)


def test_a_regression_head_has_the_channels_x_y_score_and_both_sigmas() -> None:
    """In this order, which saved weights rely on: sigmoid, identity and softplus by hand."""
    head = RegressionHead(4)
    values = [-1.0, 0.5, 1.5, 2.0, -0.5]
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.tensor(values))
        output = head(torch.randn(1, 1, 4))
    x, y = (1 / (1 + math.exp(-value)) for value in values[:2])
    sigma_x, sigma_y = (math.log(1 + math.exp(value)) for value in values[3:])
    assert output.keypoints[0, 0].tolist() == pytest.approx([x, y])
    assert output.scores.item() == 1.5
    assert output.sigmas[0, 0].tolist() == pytest.approx([sigma_x, sigma_y])


def test_permuting_keypoint_tokens_permutes_the_answers() -> None:
    """Keypoint tokens have no place in the sequence, only content."""
    network = build_network("distilpose-xs", 4).eval()
    crops = _random_crops(network, 1)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        before = network(crops)
        tokens = network.get_parameter("encoder.keypoint_tokens")
        tokens.copy_(tokens[:, order].clone())
        after = network(crops)
    torch.testing.assert_close(after.keypoints, before.keypoints[:, order])


def test_an_unknown_architecture_lists_the_known_ones() -> None:
    """The refusal names what was asked and all that exists."""
    known = ", ".join(sorted({*STUDENTS, *TEACHERS})) + ", or timm:NAME"
    with pytest.raises(ConfigError, match=f"'distilpose-m'; expected one of: {known}"):
        build_network("distilpose-m", 17)


def test_a_network_of_the_other_role_is_refused() -> None:
    """A teacher is no student, and the refusal lists those that are."""
    with pytest.raises(ConfigError, match=r"student, got tokenpose-xs, .* one of: distilpose-l, "):
        build_student("tokenpose-xs", 17)
    with pytest.raises(
        ConfigError, match=r"teacher, got distilpose-xs, .* one of: tokenpose-h.*timm:NAME"
    ):
        build_teacher("distilpose-xs", 17)


def test_no_keypoints_is_refused() -> None:
    """A network of zero keypoints is a mistake, not a network."""
    with pytest.raises(ConfigError, match="at least one keypoint, got 0"):
        build_network("distilpose-xs", 0)


@pytest.mark.parametrize("architecture", EXTRA_SMALL)
def test_a_crop_of_another_size_is_refused(architecture: str) -> None:
    """The refusal names both sizes: swapped height and width must not pass."""
    network = build_network(architecture, 2)
    with pytest.raises(ConfigError, match=r"takes crops of 128 x 96 .* got 96 x 128"):
        network(torch.zeros(1, 3, 96, 128))


def test_the_same_seed_draws_the_same_weights() -> None:
    """Weights come from torch's global generator alone."""
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build_network("distilpose-xs", 2).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("architecture", sorted({*STUDENTS, *TEACHERS} - LARGE))
def test_a_state_dict_fits_a_fresh_network(architecture: str) -> None:
    """Loading is strict and complete: the fixed positions need no storage."""
    first, second = (build_network(architecture, 3) for _ in range(2))
    second.load_state_dict(first.state_dict(), strict=True)
    assert not any("positions" in name for name in first.state_dict())


@pytest.mark.shared
@pytest.mark.parametrize(
    ("architecture", "inventory"),
    [
        ("distilpose-s", "distilpose_DistilPose_S_coco_256x192.txt"),
        ("tokenpose-s", "distilpose_teacher_stemnet_coco_256x192.txt"),
    ],
)
def test_parameters_match_the_public_checkpoint(
    architecture: str, inventory: str, shared_folder: Path
) -> None:
    """Backbone names and shapes are the released ones, and so are all other shapes, in number."""
    lines = (shared_folder / "checkpoint_keys" / inventory).read_text().splitlines()
    public = {name: ast.literal_eval(shape) for name, shape in (x.split("\t") for x in lines)}
    public = {name: shape for name, shape in public.items() if "pos_embedding" not in name}
    own = {n: tuple(x.shape) for n, x in build_network(architecture, 17).state_dict().items()}

    backbones = [{n: s for n, s in d.items() if n.startswith("backbone.")} for d in (public, own)]
    assert backbones[0] == backbones[1]
    assert Counter(public.values()) == Counter(own.values())
