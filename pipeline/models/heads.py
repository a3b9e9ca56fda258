"""Heads, which map keypoint tokens or a feature map to the outputs of a network.

The regression head is DistilPose's (CVPR 2023), the heatmap head of tokens TokenPose's (ICCV 2021),
and that of a feature map SimpleBaseline's (Xiao et al., ECCV 2018).
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.token_encoder import Tokens, initialise_linear


class StudentOutput(NamedTuple):
    """Outputs of a student for a batch of crops."""

    keypoints: Tensor  # (B, K, 2) as (x, y) in [0, 1]: crop pixels / (W, H)
    scores: Tensor  # (B, K), raw: trained to equal the teacher's heat at the keypoint, or its OKS
    sigmas: Tensor  # (B, K, 2) as (x, y), teacher heatmap cells, > 0
    tokens: Tokens | None = None  # of the last layer; None: not requested
    shears: Tensor | None = None  # (B, K), raw, of the Gaussian's axes; None: no such channel


class HeatmapOutput(NamedTuple):
    """Outputs of a heatmap network for a batch of crops."""

    heatmaps: Tensor  # (B, K, Hh, Wh), no activation
    tokens: Tokens | None = None  # of the last layer; None: not requested, or the network has none


class RegressionHead(nn.Module):
    """Maps each keypoint token to (x, y, score, sigma_x, sigma_y) and perhaps a shear."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, 5)
        self.apply(initialise_linear)

    @property
    def has_shear(self) -> bool:
        """Whether there is a sixth channel, by which the student's Gaussian can be rotated."""
        return self.linear.out_features == 6

    def add_shear(self) -> None:
        """Add the channel of the shear, the last one; it starts at 0 and draws no random number."""
        narrow = self.linear
        meta = nn.Linear(narrow.in_features, 6, device="meta")
        self.linear = meta.to_empty(device=narrow.weight.device)
        with torch.no_grad():
            for wide, old in zip(self.linear.parameters(), narrow.parameters(), strict=True):
                wide.zero_()[:5] = old

    def forward(self, keypoint_tokens: Tensor) -> StudentOutput:
        """Regress keypoints, scores and sigmas from (B, K, D) keypoint tokens."""
        raw = self.linear(self.norm(keypoint_tokens))
        return StudentOutput(
            keypoints=raw[..., 0:2].sigmoid(),
            scores=raw[..., 2],
            sigmas=functional.softplus(raw[..., 3:5]),
            shears=raw[..., 5] if self.has_shear else None,
        )


class HeatmapHead(nn.Module):
    """Maps each keypoint token to a heatmap, over a hidden layer or directly."""

    def __init__(self, dim: int, hidden_dim: int | None, heatmap_size_hw: tuple[int, int]) -> None:
        super().__init__()
        self.heatmap_size_hw = heatmap_size_hw
        self.norm = nn.LayerNorm(dim)
        self.hidden: nn.Module = nn.Identity()
        self.hidden_norm: nn.Module = nn.Identity()
        if hidden_dim is not None:
            self.hidden = nn.Linear(dim, hidden_dim)
            self.hidden_norm = nn.LayerNorm(hidden_dim)
        self.linear = nn.Linear(hidden_dim or dim, heatmap_size_hw[0] * heatmap_size_hw[1])
        self.apply(initialise_linear)

    def forward(self, keypoint_tokens: Tensor) -> Tensor:
        """Map (B, K, D) keypoint tokens to (B, K, Hh, Wh) heatmaps, no activation."""
        hidden = self.hidden_norm(self.hidden(self.norm(keypoint_tokens)))
        heatmaps: Tensor = self.linear(hidden)
        return heatmaps.view(*keypoint_tokens.shape[:2], *self.heatmap_size_hw)


class ConvHeatmapHead(nn.Sequential):
    """Maps a feature map to heatmaps, over deconvolutions that each double its size."""

    def __init__(self, num_channels: int, num_keypoints: int, num_deconvolutions: int) -> None:
        """Draw the weights as SimpleBaseline does; without deconvolutions, as HRNet does.

        num_channels: of the feature map; a deconvolution has 256 channels and a kernel of 4.
        """
        super().__init__()
        widths = (num_channels, *[256] * num_deconvolutions)
        for number, (before, after) in enumerate(itertools.pairwise(widths)):
            deconvolution = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
            nn.init.normal_(deconvolution.weight, std=0.001)
            layers = (deconvolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
            self.add_module(f"deconvolution{number + 1}", nn.Sequential(*layers))
        final = nn.Conv2d(widths[-1], num_keypoints, 1)
        nn.init.normal_(final.weight, std=0.001)
        nn.init.zeros_(final.bias)  # type: ignore[arg-type]
        self.add_module("final", final)
