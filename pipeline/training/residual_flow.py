"""Residual log-likelihood: regression under a learned density of errors.

Li et al., "Human Pose Regression with Residual Log-likelihood Estimation" (ICCV 2021). A student's
sigma scales its error; the density of scaled errors is a Laplace distribution times what a small
normalising flow learns, one flow for all keypoints. The flow is needed in training alone.
"""

import math
from itertools import cycle

import torch
from torch import Tensor, nn

from pipeline.training.heatmap_losses import SMALLEST_VARIANCE

NUM_LAYERS, HIDDEN_DIM = 6, 64
"""Those of the published code."""


class ResidualFlow(nn.Module):
    """A RealNVP flow over the plane (Dinh et al., ICLR 2017) with a standard normal base.

    Each layer keeps one coordinate, and scales and shifts the other by functions of the kept one.
    """

    kept: Tensor

    def __init__(self, num_layers: int = NUM_LAYERS, hidden_dim: int = HIDDEN_DIM) -> None:
        super().__init__()
        axes = [axis for axis, _ in zip(cycle((1, 0)), range(num_layers), strict=False)]
        kept = nn.functional.one_hot(torch.tensor(axes), 2).float()
        self.register_buffer("kept", kept, persistent=False)  # (L, 2) in {0, 1}
        self.scales = nn.ModuleList(
            nn.Sequential(*_perceptron(hidden_dim), nn.Tanh()) for _ in range(num_layers)
        )
        self.shifts = nn.ModuleList(
            nn.Sequential(*_perceptron(hidden_dim)) for _ in range(num_layers)
        )

    def to_base(self, errors: Tensor) -> tuple[Tensor, Tensor]:
        """Map (..., 2) errors to the base, and return the log of the map's volume change too.

        Returns (..., 2) and (...), the log of the absolute determinant of the map's derivative.
        """
        points, log_volume = errors, errors.new_zeros(errors.shape[:-1])
        layers = zip(self.kept, self.scales, self.shifts, strict=True)
        for kept, scale, shift in reversed(list(layers)):
            changed = 1.0 - kept
            fixed = kept * points
            log_scales = changed * scale(fixed)
            points = fixed + changed * (points - shift(fixed)) * torch.exp(-log_scales)
            log_volume = log_volume - log_scales.sum(-1)
        return points, log_volume

    def forward(self, errors: Tensor) -> Tensor:
        """Return the log density (...) of (..., 2) errors; the density integrates to 1."""
        points, log_volume = self.to_base(errors)
        return log_volume - 0.5 * points.square().sum(-1) - math.log(2.0 * math.pi)


def residual_likelihood_loss(
    keypoints: Tensor,
    sigmas: Tensor,
    target_keypoints: Tensor,
    keypoint_weights: Tensor,
    flow: nn.Module,
    sigma_floor: float = 0.0,
) -> Tensor:
    """Return the mean of -log phi(e) + log s + log(2 s) + |e| over B K 2 coordinates.

    With the error e = (x - target) / s and phi the flow's density of both coordinates of an error.
    As in the published code, phi and a Laplace density are two factors, each with its own log s,
    and log phi counts for each of the two coordinates.

    keypoints, target_keypoints: (B, K, 2) as (x, y), in units of one frame.
    sigmas: (B, K, 2) as (x, y), s, in units of the same frame.
    keypoint_weights: (B, K) in [0, 1].
    flow: maps (B, K, 2) errors to (B, K) log densities.
    sigma_floor: smallest s, added to sigmas in quadrature.
    """
    weights = keypoint_weights[..., None]
    target_keypoints = torch.where(weights > 0, target_keypoints, keypoints.detach())
    scales = (sigmas.square() + (sigma_floor**2 + SMALLEST_VARIANCE)).sqrt()
    errors = (keypoints - target_keypoints) / scales
    likelihood = 2.0 * scales.log() + math.log(2.0) + errors.abs() - flow(errors)[..., None]
    return (weights * likelihood).mean()


def _perceptron(hidden_dim: int) -> list[nn.Module]:
    layers: list[nn.Module] = [
        *(nn.Linear(2, hidden_dim), nn.LeakyReLU()),
        *(nn.Linear(hidden_dim, hidden_dim), nn.LeakyReLU()),
        nn.Linear(hidden_dim, 2),
    ]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, gain=0.01)
    return layers
