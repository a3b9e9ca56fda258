"""Distances between a student's keypoints and targets: the annotated ones, or a teacher's.

Every distance is a mean over B K 2 coordinates, not over the labelled keypoints.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.training.settings import RegressionKind


def regression_loss(
    keypoints: Tensor,
    target_keypoints: Tensor,
    keypoint_weights: Tensor,
    kind: RegressionKind = "smooth_l1",
) -> Tensor:
    """Return the mean distance over B K 2 coordinates.

    keypoints, target_keypoints: (B, K, 2) as (x, y), fractions of the crop.
    keypoint_weights: (B, K) in [0, 1].
    """
    weights = keypoint_weights[..., None]
    target_keypoints = torch.where(weights > 0, target_keypoints, 0.0)
    distance: Callable[..., Tensor] = (
        functional.smooth_l1_loss if kind == "smooth_l1" else functional.l1_loss
    )
    return (weights * distance(keypoints, target_keypoints, reduction="none")).mean()
