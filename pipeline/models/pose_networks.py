"""The pose networks by name, each assembled in one literal call.

``distilpose-s`` and ``tokenpose-s`` are the published sizes (DistilPose, CVPR 2023); the ``-xs``
pair is ours, for crops of 128 x 96 and for training on a CPU.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.backbones import ConvBackbone, small_net, stem_net
from pipeline.models.heads import HeatmapHead, RegressionHead, StudentOutput
from pipeline.models.token_encoder import TokenDistillingEncoder, Tokens


class TokenNetwork(nn.Module):
    """A backbone and a token encoder, with what callers need to know to feed them."""

    def __init__(
        self,
        architecture: str,
        input_size_hw: tuple[int, int],
        backbone: ConvBackbone,
        encoder: TokenDistillingEncoder,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.input_size_hw = input_size_hw
        self.num_keypoints = encoder.num_keypoints
        self.backbone = backbone
        self.encoder = encoder

    def tokens(self, images: Tensor) -> Tokens:
        """Return the last layer's tokens, before the head's layer norm.

        images: (B, 3, H, W), crop frame, normalised.
        """
        if tuple(images.shape[-2:]) != self.input_size_hw:
            height, width = self.input_size_hw
            raise ConfigError(
                f"{self.architecture} takes crops of {height} x {width} (height x width), got "
                f"{images.shape[-2]} x {images.shape[-1]}; warp the crops to that size"
            )
        return self.encoder(self.backbone(images))


class RegressionStudent(TokenNetwork):
    """A light network that regresses keypoints directly."""

    def __init__(
        self,
        architecture: str,
        input_size_hw: tuple[int, int],
        backbone: ConvBackbone,
        encoder: TokenDistillingEncoder,
        head: RegressionHead,
    ) -> None:
        super().__init__(architecture, input_size_hw, backbone, encoder)
        self.head = head

    def forward(self, images: Tensor) -> StudentOutput:
        """Regress keypoints from (B, 3, H, W) normalised crops."""
        return self.head(self.tokens(images).keypoint_tokens)


class TokenPoseTeacher(TokenNetwork):
    """The same network with a heatmap head."""

    def __init__(
        self,
        architecture: str,
        input_size_hw: tuple[int, int],
        backbone: ConvBackbone,
        encoder: TokenDistillingEncoder,
        head: HeatmapHead,
    ) -> None:
        super().__init__(architecture, input_size_hw, backbone, encoder)
        self.head = head
        self.heatmap_size_hw = head.heatmap_size_hw

    def forward(self, images: Tensor) -> Tensor:
        """Draw (B, K, Hh, Wh) heatmaps from (B, 3, H, W) normalised crops."""
        return self.head(self.tokens(images).keypoint_tokens)


class _Trunk(NamedTuple):
    """What a student and the teacher of its size share."""

    input_size_hw: tuple[int, int]
    backbone: ConvBackbone
    encoder: TokenDistillingEncoder


def _trunk_s(num_keypoints: int) -> _Trunk:
    encoder = TokenDistillingEncoder(
        num_channels=256,
        feature_size_hw=(64, 48),
        num_keypoints=num_keypoints,
        patch_size_hw=(4, 3),
        dim=192,
        depth=12,
        num_heads=8,
        mlp_ratio=3,
    )
    return _Trunk((256, 192), stem_net(), encoder)


def _trunk_xs(num_keypoints: int) -> _Trunk:
    encoder = TokenDistillingEncoder(
        num_channels=128,
        feature_size_hw=(8, 6),
        num_keypoints=num_keypoints,
        patch_size_hw=(1, 1),
        dim=128,
        depth=4,
        num_heads=4,
        mlp_ratio=2,
    )
    return _Trunk((128, 96), small_net(), encoder)


ARCHITECTURES: dict[str, Callable[[int], RegressionStudent | TokenPoseTeacher]] = {
    "distilpose-s": lambda num_keypoints: RegressionStudent(
        "distilpose-s", *_trunk_s(num_keypoints), RegressionHead(192)
    ),
    "distilpose-xs": lambda num_keypoints: RegressionStudent(
        "distilpose-xs", *_trunk_xs(num_keypoints), RegressionHead(128)
    ),
    "tokenpose-s": lambda num_keypoints: TokenPoseTeacher(
        "tokenpose-s", *_trunk_s(num_keypoints), HeatmapHead(192, 384, (64, 48))
    ),
    "tokenpose-xs": lambda num_keypoints: TokenPoseTeacher(
        "tokenpose-xs", *_trunk_xs(num_keypoints), HeatmapHead(128, 128, (64, 48))
    ),
}


def build_network(architecture: str, num_keypoints: int) -> RegressionStudent | TokenPoseTeacher:
    """Build the named network with freshly drawn weights (from torch's global generator)."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ConfigError(f"unknown architecture {architecture!r}; expected one of: {known}")
    if num_keypoints < 1:
        raise ConfigError(f"a pose network needs at least one keypoint, got {num_keypoints}")
    return ARCHITECTURES[architecture](num_keypoints)
