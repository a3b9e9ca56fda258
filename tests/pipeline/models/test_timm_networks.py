"""Students and heatmap networks on trunks of timm: what runs, what it costs, what is refused."""

import re
from typing import Any

import pytest
import timm
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.models import build_student, build_teacher
from pipeline.models.backbones import PixelStatistics
from pipeline.models.cost import count_parameters
from pipeline.models.heads import ConvHeatmapHead, HeatmapOutput
from pipeline.models.timm_trunks import TimmTrunk


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [("resnet50", 33_999_697), ("hrnet_w32", 28_536_113), ("hrnet_w48", 63_595_745)],
)
def test_heatmap_networks_have_the_published_size(name: str, num_parameters: int) -> None:
    """34.0 M (SimpleBaseline), 28.5 M and 63.6 M (HRNet), with 17 keypoints."""
    with torch.device("meta"):
        network = build_teacher(f"timm:{name}", 17)
    assert count_parameters(network) == num_parameters
    assert (network.heatmap_size_hw, network.token_shape) == ((64, 48), None)


def test_the_small_pretrained_student_pays_for_no_layer_that_it_does_not_use() -> None:
    """EfficientNet-Lite0 to stride 16 has 700,768 parameters; all of it would have 4.7 M."""
    with torch.device("meta"):
        network = build_student("distilpose-lite", 17)
    trunk = network.get_submodule("backbone")
    assert count_parameters(trunk) == 700_768
    assert count_parameters(network) == 1_246_693
    assert (network.input_size_hw, network.token_shape) == ((128, 96), (128, (8, 6)))


def test_the_deconvolutions_are_those_of_the_public_checkpoint() -> None:
    """Names differ, order and shapes are those of pose_resnet_50."""
    head = ConvHeatmapHead(2048, 17, num_deconvolutions=3)
    shapes = [tuple(x.shape) for name, x in head.named_parameters() if "1." not in name]
    assert [tuple(x.shape) for x in head.parameters() if x.ndim == 4] == [
        (2048, 256, 4, 4),
        (256, 256, 4, 4),
        (256, 256, 4, 4),
        (17, 256, 1, 1),
    ]
    assert shapes[-1] == (17,)
    assert all(
        layer.bias is None for layer in head.modules() if isinstance(layer, nn.ConvTranspose2d)
    )


def test_a_deconvolution_doubles_the_map_and_is_followed_by_norm_and_relu() -> None:
    torch.manual_seed(0)
    head = ConvHeatmapHead(4, 2, num_deconvolutions=1).eval()
    features = torch.randn(1, 4, 3, 2)
    deconvolution, norm, final = (
        head.get_submodule(n) for n in ("deconvolution1.0", "deconvolution1.1", "final")
    )
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.normal_(norm.weight)
    grown = nn.functional.conv_transpose2d(
        features, deconvolution.get_parameter("weight"), stride=2, padding=1
    )
    scaled = grown / (1 + norm.eps) ** 0.5 * norm.weight[:, None, None]
    expected = torch.einsum(
        "kc,bchw->bkhw", final.get_parameter("weight")[..., 0, 0], scaled.clamp(min=0)
    )
    assert head(features).shape == (1, 2, 6, 4)
    torch.testing.assert_close(head(features), expected)


@pytest.mark.parametrize(
    ("name", "strides", "stride"),
    [("test_resnet", (16, 8), 16), ("test_resnet", (8, 4), 8), ("test_vit", (32, 16), 16)],
)
def test_a_trunk_gives_timms_own_feature_map(
    name: str, strides: tuple[int, int], stride: int
) -> None:
    """The deepest map of the first stride that there is, from the layers before it alone."""
    trunk = TimmTrunk(name, (64, 32), strides).eval()
    size: dict[str, Any] = {"img_size": (64, 32)} if name == "test_vit" else {}
    whole: Any = timm.create_model(name, **size).eval()
    whole.load_state_dict(
        {n: dict(trunk.state_dict()).get(f"body.{n}", x) for n, x in whole.state_dict().items()}
    )
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        features = trunk(images)
        maps = whole.forward_intermediates(images, intermediates_only=True)
    of_stride = [m for m in maps if m.shape[-2:] == (64 // stride, 32 // stride)]
    assert (trunk.stride, trunk.num_channels) == (stride, features.shape[1])
    torch.testing.assert_close(features, of_stride[-1])
    assert count_parameters(trunk) < count_parameters(whole)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_every_parameter_of_a_student_and_a_teacher_learns(name: str) -> None:
    """Nothing of a trunk is kept that the output does not depend on."""
    torch.manual_seed(0)
    for build in (build_student, build_teacher):
        network = build(f"timm:{name}", 2)
        output = network(torch.randn(2, 3, 256, 192))
        if isinstance(output, HeatmapOutput):
            assert output.heatmaps.shape == (2, 2, 64, 48)
        tensors = [tensor for tensor in output if tensor is not None]
        total = torch.stack([tensor.square().sum() for tensor in tensors]).sum()
        names, parameters = zip(*network.named_parameters(), strict=True)
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(names, gradients, strict=True):
            assert gradient is not None, parameter


def test_pixels_are_those_of_the_trunks_training() -> None:
    """timm's test_resnet was trained on pixels in [-1, 1], a ResNet on ImageNet's statistics."""
    with torch.device("meta"):
        networks = [build_student(f"timm:{n}", 2) for n in ("test_resnet", "resnet10t")]
    halves = PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert [network.pixels for network in networks] == [halves, PixelStatistics()]
    assert build_teacher("timm:test_resnet", 2).pixels == halves


def test_a_student_of_hrnet_has_its_highest_resolution_and_tokens_of_16_pixels() -> None:
    with torch.device("meta"):
        network = build_student("timm:hrnet_w18_small", 2)
        assert network(torch.zeros(1, 3, 256, 192)).keypoints.shape == (1, 2, 2)
    assert network.token_shape == (192, (16, 12))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", r"timm [0-9.]+ has no network 'resnet5O'; did you mean resnet50"),
        ("hrnet_w99", r"has no network 'hrnet_w99'; did you mean hrnet_w"),
        (
            "resnet50.other",
            r"no weights of that tag: .*other.*; leave it out, or see timm.list_pre",
        ),
        (
            "vit_small_patch14_dinov2",
            r"feature maps of stride \[14\]; expected one of 16, 8; choose",
        ),
    ],
)
def test_what_timm_does_not_have_is_refused_in_one_line(name: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message) as caught:
        build_student(f"timm:{name}", 2)
    assert not re.search(r"\n", str(caught.value))


def test_no_keypoints_is_refused() -> None:
    for build in (build_student, build_teacher):
        with pytest.raises(ConfigError, match="at least one keypoint, got 0"):
            build("timm:test_resnet", 0)


def test_the_encoder_on_a_trunk_of_timm_has_these_sizes() -> None:
    """Six layers of width 192 and 8 heads; distilpose-lite has four of width 128 and 4 heads."""
    with torch.device("meta"):
        networks: list[Any] = [build_student(n, 17) for n in ("timm:resnet10t", "distilpose-lite")]
    sizes = [
        (
            len(network.encoder.layers),
            network.token_shape.dim,
            layer.num_heads,
            layer.mlp_in.out_features,
        )
        for network in networks
        for layer in network.encoder.layers[:1]
    ]
    assert sizes == [(6, 192, 8, 3 * 192), (4, 128, 4, 2 * 128)]
