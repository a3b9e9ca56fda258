"""The pose networks by name, each assembled in one literal call.

``distilpose-s`` and ``tokenpose-s`` are the published sizes (DistilPose, CVPR 2023); the ``-xs``
pair is ours, for crops of 128 x 96 and for training on a CPU.

To add a network: subclass ``Student`` or ``HeatmapTeacher`` if none of the classes here fits, and
add one entry to ``STUDENTS`` or ``TEACHERS``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.backbones import Backbone, PixelStatistics, small_net, stem_net
from pipeline.models.heads import HeatmapHead, HeatmapOutput, RegressionHead, StudentOutput
from pipeline.models.timm_trunks import TimmTrunk
from pipeline.models.token_encoder import TokenDistillingEncoder, TokenShape


class PoseNetwork(nn.Module):
    """A network that takes normalised crops of one size, with its sizes and its name."""

    role: ClassVar[Literal["student", "teacher"]]
    architecture: str
    input_size_hw: tuple[int, int]
    num_keypoints: int
    heatmap_size_hw: tuple[int, int] | None = None
    """Size of the heatmaps of a teacher; None: a student."""
    token_shape: TokenShape | None = None
    """Width and patch grid of its tokens; None: the network has no tokens."""
    pixels = PixelStatistics()
    """Statistics that its crops are normalised with: those of its backbone."""

    def check_crops(self, images: Tensor) -> None:
        """Raise ConfigError for crops (B, 3, H, W) of another size than ``input_size_hw``."""
        if tuple(images.shape[-2:]) != self.input_size_hw:
            height, width = self.input_size_hw
            raise ConfigError(
                f"{self.architecture} takes crops of {height} x {width} (height x width), got "
                f"{images.shape[-2]} x {images.shape[-1]}; warp the crops to that size"
            )


class Student(PoseNetwork):
    """A network that regresses keypoints directly: ``(images, with_tokens) -> StudentOutput``."""

    role = "student"


class HeatmapTeacher(PoseNetwork):
    """A network that predicts heatmaps: ``(images, with_tokens) -> HeatmapOutput``."""

    role = "teacher"

    heatmap_size_hw: tuple[int, int]


class RegressionStudent(Student):
    """A backbone, a token encoder and a regression head (DistilPose, CVPR 2023)."""

    def __init__(
        self,
        architecture: str,
        input_size_hw: tuple[int, int],
        backbone: Backbone,
        encoder: TokenDistillingEncoder,
        head: RegressionHead,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.input_size_hw = input_size_hw
        self.pixels = backbone.pixels
        self.num_keypoints = encoder.num_keypoints
        self.token_shape = encoder.token_shape
        self.backbone = backbone
        self.encoder = encoder
        self.head = head

    def forward(self, images: Tensor, with_tokens: bool = False) -> StudentOutput:
        """Regress keypoints from (B, 3, H, W) normalised crops.

        with_tokens: return the tokens of the last layer too, before the layer norm of the head.
        """
        self.check_crops(images)
        tokens = self.encoder(self.backbone(images))
        output = self.head(tokens.keypoint_tokens)
        return output._replace(tokens=tokens) if with_tokens else output


class TokenPoseTeacher(HeatmapTeacher):
    """The same network with a heatmap head (TokenPose, ICCV 2021)."""

    def __init__(
        self,
        architecture: str,
        input_size_hw: tuple[int, int],
        backbone: Backbone,
        encoder: TokenDistillingEncoder,
        head: HeatmapHead,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.input_size_hw = input_size_hw
        self.pixels = backbone.pixels
        self.heatmap_size_hw = head.heatmap_size_hw
        self.num_keypoints = encoder.num_keypoints
        self.token_shape = encoder.token_shape
        self.backbone = backbone
        self.encoder = encoder
        self.head = head

    def forward(self, images: Tensor, with_tokens: bool = False) -> HeatmapOutput:
        """Predict heatmaps of (B, 3, H, W) normalised crops; ``with_tokens`` as for a student."""
        self.check_crops(images)
        tokens = self.encoder(self.backbone(images))
        return HeatmapOutput(self.head(tokens.keypoint_tokens), tokens if with_tokens else None)


class _Trunk(NamedTuple):
    """The parts that a student and the teacher of its size share."""

    input_size_hw: tuple[int, int]
    backbone: Backbone
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


def _trunk_lite(num_keypoints: int) -> _Trunk:
    backbone = TimmTrunk("tf_efficientnet_lite0", (128, 96), strides=(16,))
    encoder = TokenDistillingEncoder(
        num_channels=backbone.num_channels,
        feature_size_hw=(8, 6),
        num_keypoints=num_keypoints,
        patch_size_hw=(1, 1),
        dim=128,
        depth=4,
        num_heads=4,
        mlp_ratio=2,
    )
    return _Trunk((128, 96), backbone, encoder)


def _trunk_timm(name: str, num_keypoints: int) -> _Trunk:
    backbone = TimmTrunk(name, (256, 192), strides=(16, 8))
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
    return _Trunk((256, 192), backbone, encoder)


STUDENTS: Mapping[str, Callable[[int], Student]] = {
    "distilpose-lite": lambda num_keypoints: RegressionStudent(
        "distilpose-lite", *_trunk_lite(num_keypoints), RegressionHead(128)
    ),
    "distilpose-s": lambda num_keypoints: RegressionStudent(
        "distilpose-s", *_trunk_s(num_keypoints), RegressionHead(192)
    ),
    "distilpose-xs": lambda num_keypoints: RegressionStudent(
        "distilpose-xs", *_trunk_xs(num_keypoints), RegressionHead(128)
    ),
}
TEACHERS: Mapping[str, Callable[[int], HeatmapTeacher]] = {
    "tokenpose-s": lambda num_keypoints: TokenPoseTeacher(
        "tokenpose-s", *_trunk_s(num_keypoints), HeatmapHead(192, 384, (64, 48))
    ),
    "tokenpose-xs": lambda num_keypoints: TokenPoseTeacher(
        "tokenpose-xs", *_trunk_xs(num_keypoints), HeatmapHead(128, 128, (64, 48))
    ),
}


TIMM = "timm:"
"""Prefix of the networks whose backbone is a trunk of timm, such as ``timm:resnet50``."""


def build_network(architecture: str, num_keypoints: int) -> Student | HeatmapTeacher:
    """Build the named network with freshly drawn weights (from torch's global generator).

    Raises:
        ConfigError: no network has this name, or there is no keypoint.
    """
    build = STUDENTS.get(architecture) or TEACHERS.get(architecture)
    if build is None:
        known = ", ".join(sorted({**STUDENTS, **TEACHERS}))
        raise ConfigError(
            f"unknown architecture {architecture!r}; expected one of: {known}, or {TIMM}NAME of a "
            "network of timm"
        )
    _check_keypoints(num_keypoints)
    return build(num_keypoints)


def build_student(architecture: str, num_keypoints: int) -> Student:
    """Build a student: as ``build_network``, or of a trunk of timm, ``timm:NAME``.

    Raises:
        ConfigError: no student has this name, or there is no keypoint.
    """
    if architecture.startswith(TIMM):
        _check_keypoints(num_keypoints)
        trunk = _trunk_timm(architecture.removeprefix(TIMM), num_keypoints)
        return RegressionStudent(architecture, *trunk, RegressionHead(192))
    network = build_network(architecture, num_keypoints)
    if not isinstance(network, Student):
        raise _wrong_role(architecture, "student", STUDENTS)
    return network


def build_teacher(architecture: str, num_keypoints: int) -> HeatmapTeacher:
    """Build the named teacher; as ``build_network``, and a student's name is refused too."""
    network = build_network(architecture, num_keypoints)
    if not isinstance(network, HeatmapTeacher):
        raise _wrong_role(architecture, "teacher", TEACHERS)
    return network


def _check_keypoints(num_keypoints: int) -> None:
    if num_keypoints < 1:
        raise ConfigError(f"a pose network needs at least one keypoint, got {num_keypoints}")


def _wrong_role(architecture: str, role: str, networks: Iterable[str]) -> ConfigError:
    known = ", ".join(sorted(networks))
    return ConfigError(
        f"architecture must be that of a {role}, got {architecture}, which is none; choose one of: "
        f"{known}, {TIMM}NAME"
    )
