"""Likelihood of keypoints under a rotated Gaussian, whose covariance the student predicts.

The precision is given by its Cholesky factor, so that any output of the student is a Gaussian.
"""

import torch
from torch import Tensor

from pipeline.training.heatmap_losses import SMALLEST_VARIANCE


def covariance_loss(
    keypoints: Tensor,
    sigmas: Tensor,
    shears: Tensor,
    target_keypoints: Tensor,
    keypoint_weights: Tensor,
    sigma_floor: float = 0.0,
) -> Tensor:
    """Return the mean negative log-likelihood of the targets, over B K keypoints, but for log 2 pi.

    With the error (dx, dy) it is ((l11 dx + l21 dy)^2 + (l22 dy)^2) / 2 - log l11 - log l22, where
    l11 = 1 / sigma_x, l22 = 1 / sigma_y and l21 = shear / sigma_y. Without shear the axes of the
    Gaussian are those of the crop, and the sigmas its standard deviations; with it, that of x is
    sigma_x sqrt(1 + shear^2), and the correlation of x and y is -shear / sqrt(1 + shear^2).

    keypoints, target_keypoints: (B, K, 2) as (x, y), in units of one frame.
    sigmas: (B, K, 2) as (x, y), in units of the same frame.
    shears: (B, K).
    keypoint_weights: (B, K) in [0, 1].
    sigma_floor: smallest sigma, added to sigmas in quadrature.
    """
    is_used = keypoint_weights[..., None] > 0
    targets = torch.where(is_used, target_keypoints, keypoints.detach())
    variances = sigmas.square() + (sigma_floor**2 + SMALLEST_VARIANCE)
    error_x, error_y = ((keypoints - targets) * variances.rsqrt()).unbind(-1)
    squares = (error_x + shears * error_y).square() + error_y.square()
    return 0.5 * (keypoint_weights * (squares + variances.log().sum(-1))).mean()
