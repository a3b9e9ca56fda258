"""The backbones keep what they promise the encoder: channels and stride."""

from collections.abc import Callable

import pytest
import torch

from pipeline.models.backbones import ConvBackbone, small_net, stem_net


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
