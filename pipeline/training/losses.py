"""The losses of DistilPose (CVPR 2023), without the defects of its released code.

Every term is a mean over the full count (B K 2, B K Hh Wh or B K), not over the labelled keypoints.
One affine, crop_to_heatmap, carries the student's point to both distilled terms: the centre of the
simulated Gaussian and the place where the teacher's heat is looked up never differ by a convention.

Teacher heatmaps come as stored: uint8 with one scale per map (heat = uint8 * scale), or as floats.
Targets of keypoints whose weight is 0 may be NaN: they reach neither a loss nor a gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.models.heads import StudentOutput
from pipeline.training.settings import LossConfig, RegressionKind

# Keeps the variance above zero where a student's sigma underflows; the paper's value.
_SMALLEST_VARIANCE = 1e-9
# Smaller exponents are as good as 0, and a CPU's exp is ten times slower once it underflows.
_SMALLEST_EXPONENT = -80.0


@dataclass(frozen=True)
class TrainingTargets:
    """What a batch of crops is compared with; tensors on the student's device."""

    keypoints: Tensor  # (B, K, 2) as (x, y), student crop pixels / (W, H); NaN where unlabelled
    keypoint_weights: Tensor  # (B, K) in {0, 1}: labelled and inside the crop
    crop_to_heatmap: Tensor  # (2, 3), *student* crop pixels to the teacher's heatmap frame
    input_size_hw: tuple[int, int]  # the student's
    heatmaps: Tensor | None = None  # (B, K, Hh, Wh) uint8, or float without `scale`
    scale: Tensor | None = None  # (B, K), heat = heatmaps * scale


class LossTerms(NamedTuple):
    """A step's loss and, for the log, the terms it is made of."""

    total: Tensor  # (), weighted sum
    terms: dict[str, Tensor]  # name -> (), unweighted, detached; exactly the configured terms


def student_loss(
    output: StudentOutput, targets: TrainingTargets, config: LossConfig, step: int
) -> LossTerms:
    """Return the weighted sum of the configured terms, and each of them by name.

    Raises ConfigError where a distilled term is configured and the targets hold no heatmaps.
    """
    # Half precision would lose the loss in the rounding of its large, cancelling products.
    with torch.autocast(output.keypoints.device.type, enabled=False):
        keypoints, scores, sigmas = (_at_least_float32(tensor) for tensor in output)
        weights = targets.keypoint_weights.to(keypoints)
        terms: dict[str, Tensor] = {}
        if config.regression > 0:
            terms["regression"] = regression_loss(
                keypoints, targets.keypoints.to(keypoints), weights, config.regression_kind
            )
        if config.needs_teacher:
            points = keypoints_to_heatmap(keypoints, targets)
            heatmaps = _require_heatmaps(targets, config)
            if config.distil_unlabelled_keypoints:
                weights = torch.ones_like(weights)
            if config.simulated_heatmap > 0:
                terms["simulated_heatmap"] = simulated_heatmap_loss(
                    points, sigmas, heatmaps, weights, targets.scale, config.sigma_floor
                )
            if config.confidence > 0:
                terms["confidence"] = confidence_loss(
                    scores, points, heatmaps, weights, targets.scale
                )
        total = torch.stack([term_weight(config, n, step) * term for n, term in terms.items()])
        return LossTerms(total.sum(), {name: term.detach() for name, term in terms.items()})


def term_weight(config: LossConfig, name: str, step: int) -> float:
    """Return the weight of a named term at a step, counted from 0."""
    weight: float = getattr(config, name)
    if name == "regression" or step >= config.distillation_warmup_steps:
        return weight
    return weight * step / config.distillation_warmup_steps


def keypoints_to_heatmap(keypoints: Tensor, targets: TrainingTargets) -> Tensor:
    """Carry (B, K, 2) keypoints, fractions of the student's crop, to the heatmap frame."""
    height, width = targets.input_size_hw
    affine = targets.crop_to_heatmap.to(keypoints)
    x, y = (keypoints[..., 0:1] * width, keypoints[..., 1:2] * height)
    return x * affine[:, 0] + y * affine[:, 1] + affine[:, 2]


def regression_loss(
    keypoints: Tensor,
    target_keypoints: Tensor,
    keypoint_weights: Tensor,
    kind: RegressionKind = "smooth_l1",
) -> Tensor:
    """Return the mean distance over B K 2 coordinates.

    keypoints, target_keypoints: (B, K, 2) as (x, y), fractions of the crop.
    keypoint_weights: (B, K) in {0, 1}.
    """
    weights = keypoint_weights[..., None]
    target_keypoints = torch.where(weights > 0, target_keypoints, 0.0)
    distance: Callable[[Tensor, Tensor], Tensor] = (
        functional.smooth_l1_loss if kind == "smooth_l1" else functional.l1_loss
    )
    return distance(weights * keypoints, weights * target_keypoints)


def simulated_heatmap_loss(
    points: Tensor,
    sigmas: Tensor,
    heatmaps: Tensor,
    keypoint_weights: Tensor,
    scale: Tensor | None = None,
    sigma_floor: float = 0.0,
) -> Tensor:
    """Return the mean squared difference of rendered Gaussians and heatmaps, over B K Hh Wh cells.

    A Gaussian is a product of a column g_y and a row g_x, so that with the map T the sum over its
    cells is |g_y|^2 |g_x|^2 - 2 g_y T g_x + |T|^2, and no Gaussian is ever drawn.

    points: (B, K, 2) as (x, y), heatmap frame.
    sigmas: (B, K, 2) as (x, y), heatmap cells.
    heatmaps: (B, K, Hh, Wh), uint8 with scale (B, K), or float.
    keypoint_weights: (B, K) in {0, 1}.
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
    squared_gaussians = columns.square().sum(-1) * rows.square().sum(-1)
    squared_errors = squared_gaussians - 2.0 * products + squared_heat
    return (keypoint_weights * squared_errors).mean() / (height * width)


def confidence_loss(
    scores: Tensor,
    points: Tensor,
    heatmaps: Tensor,
    keypoint_weights: Tensor,
    scale: Tensor | None = None,
) -> Tensor:
    """Return the mean absolute difference of scores and the teacher's heat, over B K keypoints.

    The look-up passes no gradient to the points: a score copies the heat, it never chases it.

    scores: (B, K), raw.
    points: (B, K, 2) as (x, y), heatmap frame.
    heatmaps: (B, K, Hh, Wh), uint8 with scale (B, K), or float.
    keypoint_weights: (B, K) in {0, 1}.
    """
    heat = heat_at(points.detach(), heatmaps, scale).to(scores.dtype)
    heat = torch.where(keypoint_weights > 0, heat, 0.0)
    return functional.l1_loss(keypoint_weights * scores, keypoint_weights * heat)


def heatmap_loss(heatmaps: Tensor, target_heatmaps: Tensor, keypoint_weights: Tensor) -> Tensor:
    """Return the mean squared error over B K Hh Wh cells, for training a teacher.

    heatmaps, target_heatmaps: (B, K, Hh, Wh).
    keypoint_weights: (B, K) in {0, 1}.
    """
    is_used = keypoint_weights[..., None, None] > 0
    errors = torch.where(is_used, heatmaps - target_heatmaps, 0.0)
    return (keypoint_weights * errors.square().mean((-2, -1))).mean()


def heat_at(points: Tensor, heatmaps: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return the heat of the cell that holds each point; 0 outside the map and at NaN.

    points: (B, K, 2) as (x, y), heatmap frame; a cell's centre has integer coordinates.
    heatmaps: (B, K, Hh, Wh), uint8 with scale (B, K), or float.
    Returns (B, K).
    """
    height, width = heatmaps.shape[-2:]
    column, row = (points + 0.5).floor().unbind(-1)
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = torch.where(is_inside, row * width + column, 0.0).long()
    heat = heatmaps.flatten(-2).gather(-1, index[..., None])[..., 0]
    return torch.where(is_inside, heat if scale is None else heat * scale, 0.0)


def render_gaussians(
    points: Tensor, sigmas: Tensor, heatmap_size_hw: tuple[int, int], sigma_floor: float = 0.0
) -> Tensor:
    """Draw the Gaussians of amplitude 1 that the simulated heatmap loss only thinks of.

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
    precisions = -0.5 / (sigmas.square() + (sigma_floor**2 + _SMALLEST_VARIANCE))
    rows = torch.arange(width, dtype=points.dtype, device=points.device) - points[..., 0:1]
    columns = torch.arange(height, dtype=points.dtype, device=points.device) - points[..., 1:2]
    row_exponents = precisions[..., 0:1] * rows.square()
    column_exponents = precisions[..., 1:2] * columns.square()
    return (
        column_exponents.clamp(min=_SMALLEST_EXPONENT).exp(),
        row_exponents.clamp(min=_SMALLEST_EXPONENT).exp(),
    )


def _require_heatmaps(targets: TrainingTargets, config: LossConfig) -> Tensor:
    if targets.heatmaps is None:
        raise ConfigError(
            f"the loss weights simulated_heatmap = {config.simulated_heatmap} and confidence = "
            f"{config.confidence} need a teacher's heatmaps and the targets hold none; train from "
            "a store with a teacher, or set both to 0"
        )
    if (targets.heatmaps.dtype == torch.uint8) != (targets.scale is not None):
        raise ConfigError(
            "expected uint8 heatmaps with a scale, or float heatmaps without, got "
            f"{targets.heatmaps.dtype} {'with' if targets.scale is not None else 'without'} a scale"
        )
    return targets.heatmaps


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
