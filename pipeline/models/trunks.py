"""The trunks of the pose networks, each of one literal call: a backbone and a token encoder.

Trunks of timm whose name begins with ``hrnet_`` keep HRNet's highest resolution.
"""

from typing import NamedTuple

from pipeline.models.backbones import Backbone, Pixels, small_net, stem_net
from pipeline.models.high_resolution import HighResolutionTrunk
from pipeline.models.timm_trunks import TimmTrunk
from pipeline.models.token_encoder import TokenDistillingEncoder


class Trunk(NamedTuple):
    """The parts that a student and the teacher of its size share."""

    input_size_hw: tuple[int, int]
    backbone: Backbone
    encoder: TokenDistillingEncoder


def trunk_s(num_keypoints: int) -> Trunk:
    """Build HRNet's stem and the encoder of DistilPose-S."""
    encoder = _published_encoder(256, num_keypoints)  # first, as seeds draw in this order
    return Trunk((256, 192), stem_net(), encoder)


def trunk_xs(num_keypoints: int, depth: int = 4) -> Trunk:
    """Build two strided residual stages and a small encoder of ``depth`` layers."""
    encoder = _small_encoder(128, num_keypoints, depth)  # first, as seeds draw in this order
    return Trunk((128, 96), small_net(), encoder)


def trunk_lite(num_keypoints: int) -> Trunk:
    """Build EfficientNet-Lite0's layers to stride 16 and the encoder of the xs pair."""
    backbone = TimmTrunk("tf_efficientnet_lite0", (128, 96), strides=(16,))
    return Trunk((128, 96), backbone, _small_encoder(backbone.num_channels, num_keypoints))


def trunk_hrnet(num_keypoints: int, num_stages: int) -> Trunk:
    """Build the first stages of HRNet-W48 and the encoder of DistilPose's large networks."""
    backbone = HighResolutionTrunk("hrnet_w48", num_stages)
    return Trunk((256, 192), backbone, _published_encoder(48, num_keypoints))


def trunk_tokenpose_s(num_keypoints: int, patch_size_hw: tuple[int, int]) -> Trunk:
    """Build HRNet's stem and the encoder of TokenPose-S, whose code scales attention by width."""
    encoder = TokenDistillingEncoder(
        num_channels=256,
        feature_size_hw=(64, 48),
        num_keypoints=num_keypoints,
        patch_size_hw=patch_size_hw,
        dim=192,
        depth=12,
        num_heads=8,
        mlp_ratio=3,
        scale_per_head=False,
    )
    return Trunk((256, 192), stem_net(), encoder)


def trunk_tokenpose_t(num_keypoints: int) -> Trunk:
    """Build the encoder of TokenPose-T, which cuts its patches from the image itself."""
    encoder = TokenDistillingEncoder(
        num_channels=3,
        feature_size_hw=(256, 192),
        num_keypoints=num_keypoints,
        patch_size_hw=(16, 12),
        dim=192,
        depth=12,
        num_heads=16,
        mlp_ratio=3,
    )
    return Trunk((256, 192), Pixels(), encoder)


def trunk_tokenpose_l(
    num_keypoints: int,
    input_size_hw: tuple[int, int] = (256, 192),
    patch_size_hw: tuple[int, int] = (4, 3),
) -> Trunk:
    """Build three stages of HRNet-W48 and three groups of eight layers, as TokenPose-L/D24.

    Its released code scales attention per head, unlike that of TokenPose-S.
    """
    encoder = TokenDistillingEncoder(
        num_channels=48,
        feature_size_hw=(input_size_hw[0] // 4, input_size_hw[1] // 4),
        num_keypoints=num_keypoints,
        patch_size_hw=patch_size_hw,
        dim=192,
        depth=24,
        num_heads=12,
        mlp_ratio=3,
        num_groups=3,
    )
    return Trunk(input_size_hw, HighResolutionTrunk("hrnet_w48", 3), encoder)


def trunk_timm(name: str, num_keypoints: int) -> Trunk:
    """Build a trunk of timm and an encoder of one visual token for 16 x 16 pixels."""
    backbone = _cut(name, (256, 192), strides=(16, 8))
    stride = backbone.stride
    encoder = TokenDistillingEncoder(
        num_channels=backbone.num_channels,
        feature_size_hw=(256 // stride, 192 // stride),
        num_keypoints=num_keypoints,
        patch_size_hw=(16 // stride, 16 // stride),
        dim=192,
        depth=6,
        num_heads=8,
        mlp_ratio=3,
    )
    return Trunk((256, 192), backbone, encoder)


def _published_encoder(num_channels: int, num_keypoints: int) -> TokenDistillingEncoder:
    """Build the encoder of DistilPose's students and teachers, for a feature map of stride 4."""
    return TokenDistillingEncoder(
        num_channels=num_channels,
        feature_size_hw=(64, 48),
        num_keypoints=num_keypoints,
        patch_size_hw=(4, 3),
        dim=192,
        depth=12,
        num_heads=8,
        mlp_ratio=3,
    )


def _small_encoder(num_channels: int, num_keypoints: int, depth: int = 4) -> TokenDistillingEncoder:
    """Build the encoder of the small networks, for a feature map of stride 16."""
    return TokenDistillingEncoder(
        num_channels=num_channels,
        feature_size_hw=(8, 6),
        num_keypoints=num_keypoints,
        patch_size_hw=(1, 1),
        dim=128,
        depth=depth,
        num_heads=4,
        mlp_ratio=2,
    )


def heatmap_backbone(name: str, input_size_hw: tuple[int, int]) -> Backbone:
    """Build the trunk of a heatmap network: to stride 32, to 16 where it ends there, or HRNet's."""
    return _cut(name, input_size_hw, strides=(32, 16))


def _cut(name: str, input_size_hw: tuple[int, int], strides: tuple[int, int]) -> Backbone:
    if name.startswith("hrnet_"):
        return HighResolutionTrunk(name)
    return TimmTrunk(name, input_size_hw, strides)
