"""The pose networks by name, each assembled in one literal call of parts from ``trunks.py``.

``distilpose-s`` and ``-l`` are the published students, ``tokenpose-s`` and ``-hrnet48`` their
teachers (DistilPose, CVPR 2023), ``tokenpose-l`` is TokenPose's own (ICCV 2021). The ``-xs`` pair,
``distilpose-xxs``, which is its student with one layer of attention, and ``distilpose-lite`` are
ours, for crops of 128 x 96.

To add a network: subclass ``Student`` or ``HeatmapTeacher`` if none of the classes here fits, and
add one entry to ``STUDENTS`` or ``TEACHERS``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.backbones import Backbone, PixelStatistics
from pipeline.models.heads import (
    ConvHeatmapHead,
    HeatmapHead,
    HeatmapOutput,
    RegressionHead,
    StudentOutput,
)
from pipeline.models.token_encoder import TokenDistillingEncoder, TokenShape
from pipeline.models.trunks import (
    heatmap_backbone,
    trunk_hrnet,
    trunk_lite,
    trunk_s,
    trunk_timm,
    trunk_tokenpose_l,
    trunk_xs,
)


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
    has_shear: bool = False
    """Whether a student's head has the channel of the shear."""
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
    head: RegressionHead


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
        groups = self.encoder.encode_groups(self.backbone(images))
        keypoint_tokens = torch.cat([tokens.keypoint_tokens for tokens in groups], dim=2)
        return HeatmapOutput(self.head(keypoint_tokens), groups[-1] if with_tokens else None)


class ConvTeacher(HeatmapTeacher):
    """A backbone and a convolutional head, without tokens.

    With deconvolutions this is SimpleBaseline (Xiao et al., ECCV 2018), without them HRNet.
    """

    def __init__(
        self,
        architecture: str,
        input_size_hw: tuple[int, int],
        backbone: Backbone,
        num_keypoints: int,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.input_size_hw = input_size_hw
        self.pixels = backbone.pixels
        self.heatmap_size_hw = (input_size_hw[0] // 4, input_size_hw[1] // 4)
        self.num_keypoints = num_keypoints
        self.backbone = backbone
        num_deconvolutions = (backbone.stride // 4).bit_length() - 1  # each halves the stride, to 4
        self.head = ConvHeatmapHead(backbone.num_channels, num_keypoints, num_deconvolutions)

    def forward(self, images: Tensor, with_tokens: bool = False) -> HeatmapOutput:
        """Predict heatmaps of (B, 3, H, W) normalised crops; there are no tokens to return."""
        self.check_crops(images)
        return HeatmapOutput(self.head(self.backbone(images)))


STUDENTS: Mapping[str, Callable[[int], Student]] = {
    "distilpose-l": lambda num_keypoints: RegressionStudent(
        "distilpose-l", *trunk_hrnet(num_keypoints, num_stages=3), RegressionHead(192)
    ),
    "distilpose-lite": lambda num_keypoints: RegressionStudent(
        "distilpose-lite", *trunk_lite(num_keypoints), RegressionHead(128)
    ),
    "distilpose-s": lambda num_keypoints: RegressionStudent(
        "distilpose-s", *trunk_s(num_keypoints), RegressionHead(192)
    ),
    "distilpose-xxs": lambda num_keypoints: RegressionStudent(
        "distilpose-xxs", *trunk_xs(num_keypoints, depth=1), RegressionHead(128)
    ),
    "distilpose-xs": lambda num_keypoints: RegressionStudent(
        "distilpose-xs", *trunk_xs(num_keypoints), RegressionHead(128)
    ),
}
TEACHERS: Mapping[str, Callable[[int], HeatmapTeacher]] = {
    "tokenpose-hrnet48": lambda num_keypoints: TokenPoseTeacher(
        "tokenpose-hrnet48",
        *trunk_hrnet(num_keypoints, num_stages=4),
        HeatmapHead(192, 384, (64, 48)),
    ),
    "tokenpose-l": lambda num_keypoints: TokenPoseTeacher(
        "tokenpose-l", *trunk_tokenpose_l(num_keypoints), HeatmapHead(3 * 192, None, (64, 48))
    ),
    "tokenpose-s": lambda num_keypoints: TokenPoseTeacher(
        "tokenpose-s", *trunk_s(num_keypoints), HeatmapHead(192, 384, (64, 48))
    ),
    "tokenpose-xs": lambda num_keypoints: TokenPoseTeacher(
        "tokenpose-xs", *trunk_xs(num_keypoints), HeatmapHead(128, 128, (64, 48))
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


def build_student(architecture: str, num_keypoints: int, with_shear: bool = False) -> Student:
    """Build a student: as ``build_network``, or of a trunk of timm, ``timm:NAME``.

    with_shear: its head has a sixth channel; all other weights are drawn as without.

    Raises:
        ConfigError: no student has this name, or there is no keypoint.
    """
    network: Student | HeatmapTeacher
    if architecture.startswith(TIMM):
        _check_keypoints(num_keypoints)
        trunk = trunk_timm(architecture.removeprefix(TIMM), num_keypoints)
        network = RegressionStudent(architecture, *trunk, RegressionHead(192))
    else:
        network = build_network(architecture, num_keypoints)
    if not isinstance(network, Student):
        raise _wrong_role(architecture, "student", STUDENTS)
    if with_shear:
        network.head.add_shear()
        network.has_shear = True
    return network


def build_teacher(architecture: str, num_keypoints: int) -> HeatmapTeacher:
    """Build a teacher: as ``build_network``, or SimpleBaseline or HRNet of timm, ``timm:NAME``.

    Raises:
        ConfigError: no teacher has this name, or there is no keypoint.
    """
    if architecture.startswith(TIMM):
        _check_keypoints(num_keypoints)
        backbone = heatmap_backbone(architecture.removeprefix(TIMM), (256, 192))
        return ConvTeacher(architecture, (256, 192), backbone, num_keypoints)
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
