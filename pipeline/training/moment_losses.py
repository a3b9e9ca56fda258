"""Divergence of a student's Gaussian from the moments of a teacher's heatmap.

The simulated heatmap loss compares cells, and its gradient vanishes where a narrow Gaussian lies
far from the heat. The divergence of two Gaussians grows with the square of their distance.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.training.heatmap_losses import SMALLEST_VARIANCE

WINDOW_RADIUS = 3
"""Moments are those of 7 x 7 cells: far away, noise of the floor would widen them."""
_VARIANCE_OF_A_CELL = 1 / 12
"""Variance of a uniform distribution over one cell: heat in one cell alone shows no width."""


class Moments(NamedTuple):
    """Mean and spread of the heat around the peak of each map."""

    means: Tensor  # (B, K, 2) as (x, y), heatmap frame
    sigmas: Tensor  # (B, K, 2) as (x, y), heatmap cells; at least that of one cell
    is_whole: Tensor  # (B, K) bool: the cells are all on the map and known, and hold heat


def peak_moments(heatmaps: Tensor, is_known: Tensor | None = None) -> Moments:
    """Measure the first two moments of the 7 x 7 cells around the highest cell of every map.

    A Gaussian that is wider than a cell is measured narrower than it is, as the window cuts its
    tails: one of sigma 2 has a sigma of 1.64 here, and its mean lies up to 0.17 of a cell nearer to
    the centre of the highest cell.

    heatmaps: (B, K, Hh, Wh), uint8 or float, finite, in any unit of heat; heat below 0 counts as 0.
    is_known: (B, Hh, Wh) bool, cells with heat; None: all of them. Other cells must be 0.
    """
    height, width = heatmaps.shape[-2:]
    flat = heatmaps.flatten(-2)
    peak = flat.argmax(-1)  # (B, K)
    steps = torch.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1, device=heatmaps.device)
    rows = (peak // width)[..., None] + steps  # (B, K, 7)
    columns = (peak % width)[..., None] + steps
    is_whole = (rows[..., 0] >= 0) & (rows[..., -1] < height)
    is_whole &= (columns[..., 0] >= 0) & (columns[..., -1] < width)
    cells = rows.clamp(0, height - 1)[..., :, None] * width
    cells = (cells + columns.clamp(0, width - 1)[..., None, :]).flatten(-2)  # (B, K, 49)
    if is_known is not None:
        known = is_known.flatten(-2)[:, None].expand(-1, cells.shape[1], -1)
        is_whole &= known.gather(-1, cells).all(-1)
    dtype = torch.promote_types(heatmaps.dtype, torch.float32)
    heat = flat.gather(-1, cells).to(dtype).clamp(min=0.0)
    total = heat.sum(-1, keepdim=True)
    is_whole &= total[..., 0] > 0
    heat = heat / total.clamp(min=torch.finfo(dtype).tiny)
    heat = heat.view(*peak.shape, len(steps), len(steps))
    marginals = torch.stack((heat.sum(-2), heat.sum(-1)), dim=-2)  # (B, K, 2, 7), x before y
    offsets = steps.to(dtype)
    shift = (marginals * offsets).sum(-1)  # (B, K, 2)
    variances = (marginals * offsets.square()).sum(-1) - shift.square()
    peaks = torch.stack((columns, rows), dim=-2)[..., WINDOW_RADIUS].to(dtype)
    return Moments(peaks + shift, variances.clamp(min=_VARIANCE_OF_A_CELL).sqrt(), is_whole)


def moments_loss(
    points: Tensor,
    sigmas: Tensor,
    target: Moments,
    keypoint_weights: Tensor,
    sigma_floor: float = 0.0,
) -> Tensor:
    """Return the mean divergence of the student's Gaussian from the teacher's, over B K keypoints.

    The Kullback-Leibler divergence KL(teacher || student) of two Gaussians without correlation is a
    sum over the axes of log(s / t) + (t^2 + (m - x)^2) / (2 s^2) - 1/2, with the student's point x
    and sigma s and the teacher's mean m and sigma t. At a distance d that stays, the best s is
    sqrt(t^2 + d^2).

    points: (B, K, 2) as (x, y), heatmap frame.
    sigmas: (B, K, 2) as (x, y), heatmap cells.
    keypoint_weights: (B, K) in {0, 1}; a window that is not whole counts as weight 0.
    sigma_floor: smallest sigma of the student's Gaussian, added to sigmas in quadrature.
    """
    weights = torch.where(target.is_whole, keypoint_weights, 0.0)
    is_used = weights[..., None] > 0
    means = torch.where(is_used, target.means.to(points.dtype), 0.0)
    wanted = torch.where(is_used, target.sigmas.to(points.dtype), 1.0).square()
    variances = sigmas.square() + (sigma_floor**2 + SMALLEST_VARIANCE)
    divergence = (variances / wanted).log() + (wanted + (means - points).square()) / variances - 1.0
    return 0.5 * (weights * divergence.sum(-1)).mean()
