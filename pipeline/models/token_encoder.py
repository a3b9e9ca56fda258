"""The token-distilling encoder (DistilPose, CVPR 2023; TokenPose, ICCV 2021).

A feature map is cut into patches, each a visual token; K learned keypoint tokens are put before
them, and pre-norm attention layers run over all. Students and teachers have the same encoder, so
that their tokens can be compared.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tokens(NamedTuple):
    """Output of the last layer, before any head's layer norm."""

    keypoint_tokens: Tensor  # (B, K, D)
    visual_tokens: Tensor  # (B, P, D), row by row over the patch grid


class TokenShape(NamedTuple):
    """Width and number of an encoder's tokens."""

    dim: int
    """D, channels of every token."""
    grid_hw: tuple[int, int]
    """Patches in height and width: as many visual tokens as their product."""


class EncoderLayer(nn.Module):
    """One pre-norm layer: self-attention, then a GELU perceptron, both residual."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: int, *, scale_per_head: bool = True
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_scale = (dim // num_heads if scale_per_head else dim) ** -0.5
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.attention_out = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp_in = nn.Linear(dim, dim * mlp_ratio)
        self.mlp_out = nn.Linear(dim * mlp_ratio, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, K + P, D) tokens to tokens of the same shape."""
        tokens = tokens + self.attend(self.attention_norm(tokens))
        hidden = functional.gelu(self.mlp_in(self.mlp_norm(tokens)))
        return tokens + self.mlp_out(hidden)

    def attend(self, tokens: Tensor) -> Tensor:
        """Attend from every token to every token."""
        batch, length, dim = tokens.shape
        qkv = self.qkv(tokens).view(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.transpose(1, 3).unbind(2)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, scale=self.attention_scale
        )
        return self.attention_out(mixed.transpose(1, 2).reshape(batch, length, dim))


class TokenDistillingEncoder(nn.Module):
    """Turn a feature map into keypoint tokens and visual tokens."""

    positions: Tensor

    def __init__(
        self,
        num_channels: int,
        feature_size_hw: tuple[int, int],
        num_keypoints: int,
        patch_size_hw: tuple[int, int],
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: int,
        num_groups: int = 1,
        *,
        scale_per_head: bool = True,
    ) -> None:
        """Build the encoder with freshly drawn weights.

        depth: number of layers of all groups together.
        num_groups: number of equal groups of layers; the positions are added before every layer but
            the first of the second and later groups, as TokenPose-L (3 groups) does.
        scale_per_head: scale attention by 1 / sqrt(dim / num_heads), as DistilPose and TokenPose-L;
            False: by 1 / sqrt(dim), as the released code of TokenPose-S. Weights do not tell which.
        """
        super().__init__()
        grid_hw = _patch_grid(feature_size_hw, patch_size_hw)
        self.num_keypoints = num_keypoints
        self.token_shape = TokenShape(dim, grid_hw)
        self.patch_size_hw = patch_size_hw
        self.patch_embedding = nn.Linear(math.prod(patch_size_hw) * num_channels, dim)
        self.keypoint_tokens = nn.Parameter(torch.empty(1, num_keypoints, dim))
        # Keypoint tokens have no position: their rows are zero, so one addition covers all tokens.
        # Positions are computed, not learned: no part of the state dict or of parameter counts.
        positions = functional.pad(sine_positions(grid_hw, dim), (0, 0, num_keypoints, 0))
        self.register_buffer("positions", positions, persistent=False)
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, mlp_ratio, scale_per_head=scale_per_head)
            for _ in range(depth)
        )
        self.group_depth = depth // num_groups
        nn.init.trunc_normal_(self.keypoint_tokens, std=0.02)
        self.apply(initialise_linear)

    def forward(self, features: Tensor) -> Tokens:
        """Encode a feature map into the tokens of the last layer.

        features: (B, C, h, w) of the size given at construction.
        """
        return self.encode_groups(features)[-1]

    def encode_groups(self, features: Tensor) -> list[Tokens]:
        """Encode a feature map, as ``forward``, into the tokens after each group of layers."""
        visual_tokens = self.patch_embedding(self.cut_patches(features))
        keypoint_tokens = self.keypoint_tokens.expand(features.shape[0], -1, -1)
        tokens = torch.cat((keypoint_tokens, visual_tokens), dim=1)
        groups = []
        for number, layer in enumerate(self.layers):
            begins_later_group = number > 0 and number % self.group_depth == 0
            tokens = layer(tokens if begins_later_group else tokens + self.positions)
            if (number + 1) % self.group_depth == 0:
                groups.append(
                    Tokens(tokens[:, : self.num_keypoints], tokens[:, self.num_keypoints :])
                )
        return groups

    def cut_patches(self, features: Tensor) -> Tensor:
        """Cut (B, C, h, w) features into (B, P, patch_h * patch_w * C) rows, channels fastest."""
        patch_h, patch_w = self.patch_size_hw
        batch, channels, height, width = features.shape
        rows, columns = height // patch_h, width // patch_w
        patches = features.permute(0, 2, 3, 1)
        patches = patches.reshape(batch, rows, patch_h, columns, patch_w, channels)
        return patches.transpose(2, 3).reshape(batch, rows * columns, patch_h * patch_w * channels)


def sine_positions(grid_hw: tuple[int, int], dim: int) -> Tensor:
    """Return the fixed 2-D sine embedding of a patch grid, as TokenPose defines it.

    Positions run from 1 / n to 1 along each axis, times 2 pi; the first half of the channels
    encodes y, the second x, sines and cosines alternating, wavelengths geometric up to 10,000.
    Returns (1, P, D), row by row.
    """
    if dim % 4:
        raise ValueError(f"a sine embedding needs a dimension divisible by 4, got {dim}")
    height, width = grid_hw
    half = dim // 2
    wavelengths = 10_000.0 ** (2 * (torch.arange(half) // 2) / half)
    encoded_y, encoded_x = (
        _alternate_sine_cosine(2 * math.pi * torch.arange(1, n + 1) / (n + 1e-6), wavelengths)
        for n in (height, width)
    )
    grid_y = encoded_y[:, None, :].expand(height, width, half)
    grid_x = encoded_x[None, :, :].expand(height, width, half)
    return torch.cat((grid_y, grid_x), dim=-1).reshape(1, height * width, dim)


def initialise_linear(module: nn.Module) -> None:
    """Draw a linear layer's weights from a truncated normal of 0.02 and zero its bias, as ViT."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _alternate_sine_cosine(places: Tensor, wavelengths: Tensor) -> Tensor:
    angles = places[:, None] / wavelengths
    return torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=2).flatten(1)


def _patch_grid(
    feature_size_hw: tuple[int, int], patch_size_hw: tuple[int, int]
) -> tuple[int, int]:
    (height, width), (patch_h, patch_w) = feature_size_hw, patch_size_hw
    if height % patch_h or width % patch_w:
        raise ValueError(
            f"a feature map of {height} x {width} cannot be cut into patches of "
            f"{patch_h} x {patch_w}; choose a patch that divides it"
        )
    return height // patch_h, width // patch_w
