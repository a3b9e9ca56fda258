"""The backbones keep what they promise the encoder: channels and stride."""

from collections.abc import Callable

import pytest
import timm.models.resnet
import torch
from torch import nn

from pipeline.models.backbones import BasicBlock, Bottleneck, ConvBackbone, small_net, stem_net


@pytest.mark.parametrize(
    ("build", "channels", "stride"), [(stem_net, 256, 4), (small_net, 128, 16)]
)
def test_a_feature_map_has_the_announced_channels_and_stride(
    build: Callable[[], ConvBackbone], channels: int, stride: int
) -> None:
    """``num_channels`` and ``stride`` describe what comes out."""
    backbone = build().eval()
    assert (backbone.num_channels, backbone.stride) == (channels, stride)
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, 64, 32))
    assert features.shape == (2, channels, 64 // stride, 32 // stride)
    assert (features >= 0).all()


def test_features_do_not_depend_on_the_memory_layout_of_images() -> None:
    """Channels-last crops give the features of contiguous ones."""
    backbone = small_net().eval()
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        expected = backbone(images)
        features = backbone(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("own", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_residual_block_is_that_of_timm(
    own: type[BasicBlock] | type[Bottleneck], stride: int
) -> None:
    """The same names, draws, outputs and gradients as timm's block, bit for bit."""
    in_channels, planes = 8 * own.expansion, 8
    outputs, gradients, states = [], [], []
    for block_type in (own, getattr(timm.models.resnet, own.__name__)):
        torch.manual_seed(5)
        downsample = nn.Conv2d(in_channels, planes * own.expansion, 1, stride, bias=False)
        block = block_type(in_channels, planes, stride, downsample)
        features = torch.randn(2, in_channels, 8, 6, requires_grad=True)
        output = block(features)
        outputs.append(output)
        gradients.append(torch.autograd.grad(output.square().sum(), features)[0])
        states.append(block.state_dict())
    assert torch.equal(*outputs)
    assert torch.equal(*gradients)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
