"""The vision transformer of ViTPose (Xu et al., NeurIPS 2022), from timm's.

It differs from a classifier's in three places: patches are cut with a border of two pixels of
zeros, there is no class token, and the positions are those of the patches alone.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.backbones import Backbone

PATCH = 16
"""Side of a patch in pixels, and the stride of the feature map."""
_PATCH_BORDER = 2
_NORM_EPSILON = 1e-6


class VisionTransformerTrunk(Backbone):
    """A plain vision transformer; its feature map is the tokens of the last layer, normalised."""

    def __init__(
        self, input_size_hw: tuple[int, int], dim: int, depth: int, num_heads: int
    ) -> None:
        """Build the trunk with freshly drawn weights; the perceptrons are 4 times as wide."""
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.body: Any = VisionTransformer(
            img_size=input_size_hw,
            patch_size=PATCH,
            embed_dim=dim,
            depth=depth,
            num_heads=num_heads,
            num_classes=0,
            global_pool="",
            class_token=False,
            norm_layer=functools.partial(nn.LayerNorm, eps=_NORM_EPSILON),
        )
        self.body.patch_embed.proj = nn.Conv2d(3, dim, PATCH, stride=PATCH, padding=_PATCH_BORDER)
        self.grid_hw = (input_size_hw[0] // PATCH, input_size_hw[1] // PATCH)
        self.num_channels = dim
        self.stride = PATCH

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map of images, as ``ConvBackbone``."""
        tokens: Tensor = self.body.forward_features(images.contiguous())
        features = tokens.transpose(1, 2).reshape(len(images), -1, *self.grid_hw)
        return features.contiguous(memory_format=torch.channels_last)
