"""Distances between a student's Gaussians and scores, or a network's heatmaps, and heatmaps.

Every distance is a mean over B K Hh Wh cells, or B K keypoints, not over the labelled keypoints.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Keeps the variance above zero where a student's sigma underflows; the paper's value.
SMALLEST_VARIANCE = 1e-9
# Smaller exponents are as good as 0, and a CPU's exp is ten times slower once it underflows.
_SMALLEST_EXPONENT = -80.0


def simulated_heatmap_loss(
    points: Tensor,
    sigmas: Tensor,
    heatmaps: Tensor,
    keypoint_weights: Tensor,
    scale: Tensor | None = None,
    sigma_floor: float = 0.0,
    is_known: Tensor | None = None,
) -> Tensor:
    """Return the mean squared difference of rendered Gaussians and heatmaps, over B K Hh Wh cells.

    A Gaussian is a product of a column g_y and a row g_x, so that with the map T the sum over its
    cells is |g_y|^2 |g_x|^2 - 2 g_y T g_x + |T|^2, and no Gaussian is ever drawn. Over the known
    cells alone, with their mask M, it is g_y^2 M g_x^2 - 2 g_y (M T) g_x + |M T|^2.

    points: (B, K, 2) as (x, y), heatmap frame.
    sigmas: (B, K, 2) as (x, y), heatmap cells.
    heatmaps: (B, K, Hh, Wh), uint8 or float; heat = heatmaps * scale.
    scale: (B, K); None: 1, for float heatmaps only.
    keypoint_weights: (B, K) in {0, 1}.
    sigma_floor: smallest width of a Gaussian, heatmap cells, added to sigmas in quadrature.
    is_known: (B, Hh, Wh) bool, cells that are compared; None: all of them. Other cells of the
        heatmaps must be 0.
    """
    is_used = keypoint_weights > 0
    if heatmaps.is_floating_point():
        heatmaps = torch.where(is_used[..., None, None], heatmaps, 0.0)
    heat = heatmaps.to(points.dtype)
    squared_heat = torch.linalg.vector_norm(heat, dim=(-2, -1)).square()
    height, width = heatmaps.shape[-2:]
    columns, rows = gaussian_factors(points, sigmas, (height, width), sigma_floor)
    products = (columns[..., None, :] @ heat @ rows[..., None])[..., 0, 0]
    if scale is not None:
        scale = torch.where(is_used, scale.to(points.dtype), 0.0)
        products, squared_heat = products * scale, squared_heat * scale.square()
    if is_known is None:
        squared_gaussians = columns.square().sum(-1) * rows.square().sum(-1)
    else:
        known_rows = columns.square() @ is_known.to(columns.dtype)  # (B, K, Wh)
        squared_gaussians = (known_rows * rows.square()).sum(-1)
    squared_errors = squared_gaussians - 2.0 * products + squared_heat
    return (keypoint_weights * squared_errors).mean() / (height * width)


def confidence_loss(
    scores: Tensor,
    points: Tensor,
    heatmaps: Tensor,
    keypoint_weights: Tensor,
    scale: Tensor | None = None,
    is_known: Tensor | None = None,
) -> Tensor:
    """Return the mean absolute difference of scores and the teacher's heat, over B K keypoints.

    No gradient reaches the points: the score learns the heat, and the point is not moved to it. A
    point on a cell whose heat is not known counts as a keypoint of weight 0.

    scores: (B, K), raw.
    points: (B, K, 2) as (x, y), heatmap frame.
    heatmaps: (B, K, Hh, Wh), uint8 or float; heat = heatmaps * scale.
    scale: (B, K); None: 1, for float heatmaps only.
    keypoint_weights: (B, K) in {0, 1}.
    is_known: (B, Hh, Wh) bool, cells with heat; None: all of them. Outside the map heat is 0.
    """
    heat, has_heat = known_heat_at(points.detach(), heatmaps, scale, is_known)
    keypoint_weights = torch.where(has_heat, keypoint_weights, 0.0)
    heat = heat.to(scores.dtype)
    heat = torch.where(keypoint_weights > 0, heat, 0.0)
    return functional.l1_loss(keypoint_weights * scores, keypoint_weights * heat)


def heatmap_loss(
    heatmaps: Tensor,
    target_heatmaps: Tensor,
    keypoint_weights: Tensor,
    is_known: Tensor | None = None,
) -> Tensor:
    """Return the mean squared error over B K Hh Wh cells, for training a teacher.

    heatmaps, target_heatmaps: (B, K, Hh, Wh).
    keypoint_weights: (B, K) in {0, 1}.
    is_known: (B, Hh, Wh) bool, cells that are compared; None: all of them.
    """
    is_used = keypoint_weights[..., None, None] > 0
    if is_known is not None:
        is_used = is_used & is_known[:, None]
    errors = torch.where(is_used, heatmaps - target_heatmaps, 0.0)
    return (keypoint_weights * errors.square().mean((-2, -1))).mean()


def heat_at(points: Tensor, heatmaps: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return the heat of the cell that holds each point; 0 outside the map and at NaN.

    points: (B, K, 2) as (x, y), heatmap frame; a cell's centre has integer coordinates.
    heatmaps: (B, K, Hh, Wh), uint8 or float; heat = heatmaps * scale.
    scale: (B, K); None: 1, for float heatmaps only.
    Returns (B, K).
    """
    height, width = heatmaps.shape[-2:]
    column, row = (points + 0.5).floor().unbind(-1)
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = torch.where(is_inside, row * width + column, 0.0).long()
    heat = heatmaps.flatten(-2).gather(-1, index[..., None])[..., 0]
    return torch.where(is_inside, heat if scale is None else heat * scale, 0.0)


def known_heat_at(
    points: Tensor, heatmaps: Tensor, scale: Tensor | None, is_known: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return (B, K) heat as ``heat_at``, and (B, K) bool, false for points on unknown cells.

    is_known: (B, Hh, Wh) bool; None: all cells. Outside the map heat is known to be 0.
    """
    heat = heat_at(points, heatmaps, scale)
    if is_known is None:
        return heat, torch.ones_like(heat, dtype=torch.bool)
    is_unknown = (~is_known).unsqueeze(1).expand(-1, points.shape[1], -1, -1)
    return heat, heat_at(points, is_unknown.to(torch.uint8)) == 0


def render_gaussians(
    points: Tensor, sigmas: Tensor, heatmap_size_hw: tuple[int, int], sigma_floor: float = 0.0
) -> Tensor:
    """Render the Gaussians of amplitude 1 that the simulated heatmap loss compares in factors.

    points: (B, K, 2) as (x, y), heatmap frame.
    sigmas: (B, K, 2) as (x, y), heatmap cells.
    Returns (B, K, Hh, Wh).
    """
    columns, rows = gaussian_factors(points, sigmas, heatmap_size_hw, sigma_floor)
    return columns[..., :, None] * rows[..., None, :]


def gaussian_factors(
    points: Tensor, sigmas: Tensor, heatmap_size_hw: tuple[int, int], sigma_floor: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return g_y (B, K, Hh) and g_x (B, K, Wh), whose outer product is the Gaussian."""
    height, width = heatmap_size_hw
    precisions = -0.5 / (sigmas.square() + (sigma_floor**2 + SMALLEST_VARIANCE))
    rows = torch.arange(width, dtype=points.dtype, device=points.device) - points[..., 0:1]
    columns = torch.arange(height, dtype=points.dtype, device=points.device) - points[..., 1:2]
    row_exponents = precisions[..., 0:1] * rows.square()
    column_exponents = precisions[..., 1:2] * columns.square()
    return (
        column_exponents.clamp(min=_SMALLEST_EXPONENT).exp(),
        row_exponents.clamp(min=_SMALLEST_EXPONENT).exp(),
    )
