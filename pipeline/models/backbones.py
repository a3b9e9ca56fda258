"""Convolutional backbones: a stem of two strided convolutions, then residual stages.

``stem_net`` is the stem and first stage of HRNet (Sun et al., CVPR 2019) under its public parameter
names, as used by TokenPose-S and DistilPose-S; ``small_net`` is ours, for inputs of 128 x 96.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.settings import IMAGENET_MEAN, IMAGENET_STD


class BasicBlock(nn.Module):
    """ResNet's residual block of two 3 x 3 convolutions (He et al., CVPR 2016), as in timm.

    Written out here because importing timm imports all of its models.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, planes: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, planes, h / stride, w / stride)."""
        shortcut = features if self.downsample is None else self.downsample(features)
        residual = self.bn1(self.conv1(features)).relu_()
        residual = self.bn2(self.conv2(residual))
        return residual.add_(shortcut).relu_()


class Bottleneck(nn.Module):
    """ResNet's residual block of 1 x 1, 3 x 3 and 1 x 1 convolutions; the 3 x 3 has the stride."""

    expansion = 4

    def __init__(
        self, in_channels: int, planes: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, 4 planes, h / stride, w / stride)."""
        shortcut = features if self.downsample is None else self.downsample(features)
        residual = self.bn1(self.conv1(features)).relu_()
        residual = self.bn2(self.conv2(residual)).relu_()
        residual = self.bn3(self.conv3(residual))
        return residual.add_(shortcut).relu_()


class Stage(NamedTuple):
    """Residual blocks of one kind; the first carries the stride."""

    block: type[BasicBlock] | type[Bottleneck]
    planes: int
    num_blocks: int
    stride: int


class PixelStatistics(NamedTuple):
    """Mean and standard deviation of RGB pixels in [0, 1] that images are normalised with."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


class Backbone(nn.Module):
    """Turns images into a feature map of ``num_channels`` at 1 / ``stride`` of their size."""

    num_channels: int
    stride: int
    pixels = PixelStatistics()
    """Those of its pretraining, whether or not it starts from the pretrained weights."""


class Pixels(Backbone):
    """No backbone at all: the feature map is the image (TokenPose-T)."""

    num_channels = 3
    stride = 1

    def forward(self, images: Tensor) -> Tensor:
        """Return the images themselves."""
        return images


class ConvBackbone(Backbone):
    """A stem of two strided convolutions and residual stages."""

    def __init__(self, stem_channels: tuple[int, int], stages: Sequence[Stage]) -> None:
        super().__init__()
        first, second = stem_channels
        self.conv1 = nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.num_channels = second
        self.stride = 4
        self.stage_names = [f"layer{number}" for number in range(1, len(stages) + 1)]
        for name, stage in zip(self.stage_names, stages, strict=True):
            self.add_module(name, _build_stage(self.num_channels, stage))
            self.num_channels = stage.planes * stage.block.expansion
            self.stride *= stage.stride
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map.

        images: (B, 3, H, W), crop frame, normalised.
        Returns (B, C, H / stride, W / stride), channels last in memory.
        """
        # Channels last: the encoder then cuts patches of whole rows of channels.
        features = images.contiguous(memory_format=torch.channels_last)
        features = self.bn1(self.conv1(features)).relu_()
        features = self.bn2(self.conv2(features)).relu_()
        for name in self.stage_names:
            features = self.get_submodule(name)(features)
        return features


def stem_net() -> ConvBackbone:
    """Build HRNet's stem and first stage: stride 4, 256 channels."""
    return ConvBackbone((64, 64), [Stage(Bottleneck, 64, num_blocks=4, stride=1)])


def small_net() -> ConvBackbone:
    """Build a stem and two strided residual blocks: stride 16, 128 channels.

    Training first predicts the mean pose of all people; with a strided backbone it gets beyond in
    several times fewer steps than with long token sequences.
    """
    stages = [
        Stage(BasicBlock, 64, num_blocks=1, stride=2),
        Stage(BasicBlock, 128, num_blocks=1, stride=2),
    ]
    return ConvBackbone((16, 32), stages)


def _build_stage(in_channels: int, stage: Stage) -> nn.Sequential:
    out_channels = stage.planes * stage.block.expansion
    downsample = None
    if stage.stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride=stage.stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    blocks = [stage.block(in_channels, stage.planes, stage.stride, downsample)]
    blocks += [stage.block(out_channels, stage.planes) for _ in range(stage.num_blocks - 1)]
    return nn.Sequential(*blocks)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
