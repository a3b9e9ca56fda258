"""Heads, which map keypoint tokens to the outputs of a network.

The regression head is DistilPose's (CVPR 2023), the heatmap head TokenPose's (ICCV 2021).
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.token_encoder import Tokens, initialise_linear


class StudentOutput(NamedTuple):
    """Outputs of a student for a batch of crops."""

    keypoints: Tensor  # (B, K, 2) as (x, y) in [0, 1]: crop pixels / (W, H)
    scores: Tensor  # (B, K), raw: trained to equal the teacher's heat at the keypoint
    sigmas: Tensor  # (B, K, 2) as (x, y), teacher heatmap cells, > 0
    tokens: Tokens | None = None  # of the last layer; None: not requested


class HeatmapOutput(NamedTuple):
    """Outputs of a heatmap network for a batch of crops."""

    heatmaps: Tensor  # (B, K, Hh, Wh), no activation
    tokens: Tokens | None = None  # of the last layer; None: not requested, or the network has none


class RegressionHead(nn.Module):
    """Maps each keypoint token to (x, y, score, sigma_x, sigma_y)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, 5)
        self.apply(initialise_linear)

    def forward(self, keypoint_tokens: Tensor) -> StudentOutput:
        """Regress keypoints, scores and sigmas from (B, K, D) keypoint tokens."""
        raw = self.linear(self.norm(keypoint_tokens))
        return StudentOutput(
            keypoints=raw[..., 0:2].sigmoid(),
            scores=raw[..., 2],
            sigmas=functional.softplus(raw[..., 3:5]),
        )


class HeatmapHead(nn.Module):
    """Maps each keypoint token to a heatmap."""

    def __init__(self, dim: int, hidden_dim: int, heatmap_size_hw: tuple[int, int]) -> None:
        super().__init__()
        self.heatmap_size_hw = heatmap_size_hw
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, hidden_dim)
        self.hidden_norm = nn.LayerNorm(hidden_dim)
        self.linear = nn.Linear(hidden_dim, heatmap_size_hw[0] * heatmap_size_hw[1])
        self.apply(initialise_linear)

    def forward(self, keypoint_tokens: Tensor) -> Tensor:
        """Map (B, K, D) keypoint tokens to (B, K, Hh, Wh) heatmaps, no activation."""
        hidden = self.hidden_norm(self.hidden(self.norm(keypoint_tokens)))
        heatmaps: Tensor = self.linear(hidden)
        return heatmaps.view(*keypoint_tokens.shape[:2], *self.heatmap_size_hw)
