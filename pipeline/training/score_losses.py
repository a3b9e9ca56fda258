"""What a score should say of a student's keypoint where the truth is known: how close it is.

The object keypoint similarity of a keypoint is averaged over a pose to the OKS that poses are
matched by, so poses should be ranked by its expected value.
"""

import torch
from torch import Tensor
from torch.nn import functional


def keypoint_similarity(
    keypoints: Tensor, true_keypoints: Tensor, areas: Tensor, oks_sigmas: Tensor
) -> Tensor:
    """Return exp(-d^2 / (2 s^2 kappa^2)), a keypoint's part of OKS, with kappa twice the OKS sigma.

    As pycocotools ``computeOks``, https://cocodataset.org/#keypoints-eval.

    keypoints, true_keypoints: (B, K, 2) as (x, y), crop pixels.
    areas: (B,), area of the person, crop pixels squared: s^2.
    oks_sigmas: (K,).
    Returns (B, K) in [0, 1].
    """
    squared = (keypoints - true_keypoints).square().sum(-1)
    kappa = 2.0 * oks_sigmas.to(squared.dtype)
    areas = areas.to(squared.dtype).clamp(min=torch.finfo(squared.dtype).eps)
    return torch.exp(-squared / (2.0 * areas[:, None] * kappa.square()))


def expected_score_loss(scores: Tensor, targets: Tensor, keypoint_weights: Tensor) -> Tensor:
    """Return half the mean squared difference of scores and targets, over B K keypoints.

    Squared, so that a score becomes the expected target: an absolute difference teaches the median,
    which is near 0 for every keypoint that is wrong more often than right, and ranks none of them.

    scores: (B, K), raw.
    targets: (B, K), without gradient; undefined where the weight is 0.
    keypoint_weights: (B, K) in {0, 1}.
    """
    targets = torch.where(keypoint_weights > 0, targets.to(scores.dtype), 0.0)
    return 0.5 * functional.mse_loss(keypoint_weights * scores, keypoint_weights * targets)
