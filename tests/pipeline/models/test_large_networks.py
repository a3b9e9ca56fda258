"""The published sizes: counted on the meta device, and compared in small with plain statements."""

import ast
import functools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.models import build_network
from pipeline.models.backbones import Backbone
from pipeline.models.cost import MultiplyAdds, count_multiply_adds, count_parameters
from pipeline.models.heads import HeatmapHead
from pipeline.models.high_resolution import HighResolutionTrunk
from pipeline.models.pose_networks import HeatmapTeacher, Student, TokenPoseTeacher
from pipeline.models.token_encoder import EncoderLayer, TokenDistillingEncoder, sine_positions


@functools.cache
def on_meta(architecture: str) -> Student | HeatmapTeacher:
    with torch.device("meta"):
        return build_network(architecture, 17)


@pytest.mark.parametrize(
    ("architecture", "num_parameters"),
    [
        ("distilpose-l", 21_265_637),
        ("tokenpose-hrnet48", 69_411_360),
        ("tokenpose-l", 27_482_400),
    ],
)
def test_parameters_are_the_published_ones(architecture: str, num_parameters: int) -> None:
    """21.3 M, 69.4 M (DistilPose) and 27.5 M (TokenPose-L/D24)."""
    assert count_parameters(on_meta(architecture)) == num_parameters


def test_multiply_adds_of_the_large_student() -> None:
    """10.33 G as published counts a little more than convolutions and linear layers."""
    counted = count_multiply_adds(on_meta("distilpose-l"))
    assert counted == MultiplyAdds(10_268_557_248, 12 * 2 * (17 + 256) ** 2 * 192)


@pytest.mark.slow
def test_multiply_adds_of_the_large_teachers() -> None:
    """17.03 G as published for the four-stage teacher, and 11.0 G for TokenPose-L."""
    counted = [count_multiply_adds(on_meta(f"tokenpose-{name}")) for name in ("hrnet48", "l")]
    attention = 2 * (17 + 256) ** 2 * 192
    assert counted == [
        MultiplyAdds(16_946_601_984, 12 * attention),
        MultiplyAdds(11_506_286_592, 24 * attention),
    ]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("architecture", "inventory", "prefix"),
    [
        ("distilpose-l", "distilpose_DistilPose_L_coco_256x192.txt", "backbone."),
        ("tokenpose-hrnet48", "distilpose_teacher_hr48_coco_256x192.txt", "backbone."),
        (
            "tokenpose-l",
            "tokenpose_tokenpose_L_D24_256_192_patch43_dim192_depth24_heads12.txt",
            "pre_feature.",
        ),
    ],
)
def test_parameters_match_the_public_checkpoint(
    architecture: str, inventory: str, prefix: str, shared_folder: Path
) -> None:
    """Names, order and shapes of the backbone are the released ones, as are all other shapes."""
    lines = (shared_folder / "checkpoint_keys" / inventory).read_text().splitlines()
    public = [(name, ast.literal_eval(shape)) for name, shape in (x.split("\t") for x in lines)]
    public = [(name, shape) for name, shape in public if "pos_embedding" not in name]
    own = [(name, tuple(x.shape)) for name, x in on_meta(architecture).state_dict().items()]

    theirs = [(n.removeprefix(prefix), s) for n, s in public if n.startswith(prefix)]
    assert theirs == [(n.removeprefix("backbone."), s) for n, s in own if n.startswith("backbone.")]
    assert Counter(shape for _, shape in public) == Counter(shape for _, shape in own)


@pytest.mark.parametrize("num_stages", [3, 4])
def test_the_first_branch_is_that_of_timms_whole_network(num_stages: int) -> None:
    """With the same weights, though no fusion into other branches is kept in the last module."""
    torch.manual_seed(0)
    whole: Any = timm.create_model("hrnet_w18_small", head="").eval().double()
    trunk = HighResolutionTrunk("hrnet_w18_small", num_stages).eval().double()
    state = whole.state_dict()
    trunk.load_state_dict({name: state[name] for name in trunk.state_dict()})
    branches: list[list[Tensor]] = []
    whole.get_submodule(f"stage{num_stages}").register_forward_hook(
        lambda _, __, output: branches.append(output)
    )
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    with torch.no_grad():
        whole.forward_features(images)
        features = trunk(images)
    assert features.shape == (2, trunk.num_channels, 16, 8) == (2, 16, 16, 8)
    torch.testing.assert_close(features, branches[0][0])


@pytest.mark.parametrize("scale_per_head", [True, False])
def test_attention_is_scaled_per_head_or_by_the_width(scale_per_head: bool) -> None:
    """softmax(q k / sqrt(D / heads)), or softmax(q k / sqrt(D)), of every head written out."""
    torch.manual_seed(1)
    layer = EncoderLayer(16, num_heads=4, mlp_ratio=2, scale_per_head=scale_per_head).double()
    tokens = torch.randn(2, 7, 16, dtype=torch.float64) * 20
    scale = 1 / math.sqrt(4) if scale_per_head else 1 / math.sqrt(16)
    query, key, value = (tokens @ w.T for w in layer.qkv.weight.chunk(3))
    mixed = torch.cat(
        [
            (query[..., c] @ key[..., c].mT * scale).softmax(-1) @ value[..., c]
            for c in (slice(4 * head, 4 * head + 4) for head in range(4))
        ],
        dim=-1,
    )
    expected = mixed @ layer.attention_out.weight.T + layer.attention_out.bias
    torch.testing.assert_close(layer.attend(tokens), expected)


def test_the_encoder_hands_its_scale_to_every_layer() -> None:
    for scale_per_head, scale in ((True, 1 / 2), (False, 1 / 4)):
        encoder = TokenDistillingEncoder(
            3, (4, 2), 2, (2, 2), 16, depth=2, num_heads=4, mlp_ratio=2,
            scale_per_head=scale_per_head,
        )  # fmt: skip
        assert [layer.attention_scale for layer in encoder.layers] == [scale] * 2


def test_the_large_networks_scale_per_head() -> None:
    """Their shapes do not tell: sqrt(192 / 8) for DistilPose's, sqrt(192 / 12) for TokenPose-L."""
    heads = {"distilpose-l": 8, "tokenpose-hrnet48": 8, "tokenpose-l": 12}
    for architecture, num_heads in heads.items():
        encoder: Any = on_meta(architecture).get_submodule("encoder")
        (scale,) = {layer.attention_scale for layer in encoder.layers}
        assert scale == pytest.approx(math.sqrt(num_heads / 192))


def _norm(tensor: Tensor, norm: Any) -> Tensor:
    return functional.layer_norm(tensor, tensor.shape[-1:], norm.weight, norm.bias)


def test_groups_of_layers_are_those_of_tokenpose_l() -> None:
    """Three transformers one after the other, whose keypoint tokens the head sees side by side.

    Each adds the positions before its layers but the first, and the embedding adds them once.
    """
    torch.manual_seed(2)
    encoder = TokenDistillingEncoder(
        5, (8, 6), 3, (4, 3), 16, depth=6, num_heads=4, mlp_ratio=2, num_groups=3
    )
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    head = HeatmapHead(3 * 16, None, (4, 2))
    network = TokenPoseTeacher("small", (8, 6), Backbone(), encoder, head)
    network.backbone = torch.nn.Identity()  # type: ignore[assignment]
    features = torch.randn(2, 5, 8, 6)

    positions = sine_positions((2, 2), 16)
    visual = encoder.patch_embedding(encoder.cut_patches(features)) + positions
    tokens = torch.cat((encoder.keypoint_tokens.expand(2, -1, -1), visual), dim=1)
    seen = []
    for group in range(3):
        for place, layer in enumerate(encoder.layers[2 * group : 2 * group + 2]):
            if place > 0:
                tokens = torch.cat((tokens[:, :3], tokens[:, 3:] + positions), dim=1)
            tokens = layer(tokens)
        seen.append(tokens[:, :3])
    expected = _norm(torch.cat(seen, dim=2), head.norm) @ head.linear.weight.T + head.linear.bias
    output = network(features, with_tokens=True)
    torch.testing.assert_close(output.heatmaps, expected.view(2, 3, 4, 2))
    torch.testing.assert_close(output.tokens.keypoint_tokens, tokens[:, :3])
    torch.testing.assert_close(output.tokens.visual_tokens, tokens[:, 3:])
