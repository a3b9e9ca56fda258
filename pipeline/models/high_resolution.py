"""HRNet's highest resolution (Sun et al., CVPR 2019), from timm's HRNet without its classifier.

Names and shapes are those of the public checkpoints of HRNet, TokenPose and DistilPose. They have
no fusion into branches that nothing reads: the last module fuses into the first branch alone.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.models.timm_trunks import (
    PretrainedTrunk,
    create_classifier,
    pixels_of,
    require_known,
)

_STEM = ("conv1", "bn1", "act1", "conv2", "bn2", "act2", "layer1")


class HighResolutionTrunk(PretrainedTrunk):
    """Stem and the first stages of HRNet; the feature map is that of its first branch."""

    def __init__(self, name: str, num_stages: int = 4) -> None:
        """Build the trunk with freshly drawn weights.

        name: timm's, such as ``hrnet_w48``.
        num_stages: 3 or 4, the stage of four bottlenecks counted as the first.
        """
        super().__init__(name)
        require_known(name)
        network: Any = create_classifier(name, {"head": ""})
        for part in _STEM:
            self.add_module(part, getattr(network, part))
        for number in range(2, num_stages + 1):
            for part in (f"transition{number - 1}", f"stage{number}"):
                self.add_module(part, getattr(network, part))
        last: Any = getattr(self, f"stage{num_stages}")[-1]
        last.fuse_layers = last.fuse_layers[:1]
        self.num_stages = num_stages
        self.num_channels = last.num_in_chs[0]
        self.stride = 4
        self.pixels = pixels_of(network)

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map of images, as ``ConvBackbone``."""
        features = images.contiguous(memory_format=torch.channels_last)
        for part in _STEM:
            features = self.get_submodule(part)(features)
        branches = [features]
        for number in range(2, self.num_stages + 1):
            branches = self._begin_branches(f"transition{number - 1}", branches)
            branches = self.get_submodule(f"stage{number}")(branches)
        return branches[0]

    def _begin_branches(self, transition: str, branches: list[Tensor]) -> list[Tensor]:
        """Adapt the channels of the branches, and begin one more from the lowest resolution."""
        return [
            change(branches[min(number, len(branches) - 1)])
            for number, change in enumerate(self.get_submodule(transition).children())
        ]
