"""The losses of DistilPose (CVPR 2023), without the defects of its released code.

Every term is a mean over the full count (B K 2, B K Hh Wh or B K), not over the labelled keypoints.
One affine per sample, crop_to_heatmap, maps the student's point for both distilled terms, so that
the centre of the simulated Gaussian and the cell whose heat the score learns always agree. Targets
of keypoints whose weight is 0 may be NaN: they reach no loss and no gradient.

To add a term:
  1. write its mathematics as a function of tensors, beside those below;
  2. write the few lines that call it with (output, batch, config), as ``_confidence`` does;
  3. add that function to ``LOSS_OF_TERM`` under the name of its weight;
  4. give the weight a field of ``LossConfig`` (settings.py), marked with the fields it reads;
  5. a term with parameters of its own (a flow, a projector) is an ``nn.Module`` that
     ``StudentCriterion`` holds: the optimiser and the training state then include it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.models.heads import StudentOutput
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.settings import LossConfig, RegressionKind

# Keeps the variance above zero where a student's sigma underflows; the paper's value.
_SMALLEST_VARIANCE = 1e-9
# Smaller exponents are as good as 0, and a CPU's exp is ten times slower once it underflows.
_SMALLEST_EXPONENT = -80.0


class LossTerms(NamedTuple):
    """A step's loss and, for the log, the terms it is made of."""

    total: Tensor  # (), weighted sum
    terms: dict[str, Tensor]  # name -> (), unweighted, detached; exactly the configured terms


class Criterion(nn.Module):
    """A loss that a training minimises; its own parameters, if any, are trained and saved too."""

    @property
    def reads_tokens(self) -> bool:
        """Whether the network must return its tokens."""
        return False

    @property
    def scored_keypoints(self) -> tuple[int, ...]:
        """Indices of the keypoints whose score was trained by the calls so far."""
        raise NotImplementedError

    def forward(self, output: Any, batch: TrainingBatch, step: int) -> LossTerms:
        """Return the loss of a batch, its total differentiable; steps are counted from 0."""
        raise NotImplementedError


class StudentCriterion(Criterion):
    """The weighted sum of the configured terms.

    num_keypoints: K.
    """

    is_scored: Tensor

    def __init__(self, config: LossConfig, num_keypoints: int) -> None:
        super().__init__()
        self.config = config
        # A buffer on the device, so that updating it does not wait for the device.
        self.register_buffer("is_scored", torch.zeros(num_keypoints).bool(), persistent=False)

    @property
    def reads_tokens(self) -> bool:
        return bool(self.config.reads & {"keypoint_tokens", "visual_tokens"})

    @property
    def scored_keypoints(self) -> tuple[int, ...]:
        return tuple(self.is_scored.nonzero()[:, 0].tolist())

    def forward(self, output: StudentOutput, batch: TrainingBatch, step: int) -> LossTerms:
        """Return the weighted sum of the configured terms, and each of them by name.

        Raises:
            ConfigError: a configured term reads a field of the teacher that the batch lacks.
        """
        # Half precision would lose the loss in the rounding of its large, cancelling products.
        with torch.autocast(output.keypoints.device.type, enabled=False):
            output = output._replace(
                keypoints=_at_least_float32(output.keypoints),
                scores=_at_least_float32(output.scores),
                sigmas=_at_least_float32(output.sigmas),
            )
            if "confidence" in self.config.terms:
                self.is_scored |= (distilled_weights(batch, self.config) > 0).any(dim=0)
            terms = {
                name: LOSS_OF_TERM[name](output, batch, self.config) for name in self.config.terms
            }
            weighted = [term_weight(self.config, n, step) * term for n, term in terms.items()]
            detached = {name: term.detach() for name, term in terms.items()}
            return LossTerms(torch.stack(weighted).sum(), detached)


def term_weight(config: LossConfig, name: str, step: int) -> float:
    """Return the weight of a named term at a step, counted from 0."""
    weight: float = getattr(config, name)
    if not config.terms[name].reads or step >= config.distillation_warmup_steps:
        return weight
    return weight * step / config.distillation_warmup_steps


def keypoints_to_heatmap(keypoints: Tensor, batch: TrainingBatch) -> Tensor:
    """Map (B, K, 2) keypoints from fractions of the student's crop to the heatmap frame."""
    width, height = batch.images.shape[2], batch.images.shape[1]
    affine = _require_teacher(batch).crop_to_heatmap.to(keypoints)[:, None]  # (B, 1, 2, 3)
    x, y = (keypoints[..., 0:1] * width, keypoints[..., 1:2] * height)
    return x * affine[..., 0] + y * affine[..., 1] + affine[..., 2]


def distilled_weights(batch: TrainingBatch, config: LossConfig) -> Tensor:
    """Return (B, K) in {0, 1}: the keypoints that the distilled terms learn from."""
    if config.distil_unlabelled_keypoints:
        return torch.ones_like(batch.keypoint_weights)
    return batch.keypoint_weights


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
    heatmaps: (B, K, Hh, Wh), uint8 or float; heat = heatmaps * scale.
    scale: (B, K); None: 1, for float heatmaps only.
    keypoint_weights: (B, K) in {0, 1}.
    sigma_floor: smallest width of a Gaussian, heatmap cells, added to sigmas in quadrature.
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

    No gradient reaches the points: the score learns the heat, and the point is not moved to it.

    scores: (B, K), raw.
    points: (B, K, 2) as (x, y), heatmap frame.
    heatmaps: (B, K, Hh, Wh), uint8 or float; heat = heatmaps * scale.
    scale: (B, K); None: 1, for float heatmaps only.
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
    precisions = -0.5 / (sigmas.square() + (sigma_floor**2 + _SMALLEST_VARIANCE))
    rows = torch.arange(width, dtype=points.dtype, device=points.device) - points[..., 0:1]
    columns = torch.arange(height, dtype=points.dtype, device=points.device) - points[..., 1:2]
    row_exponents = precisions[..., 0:1] * rows.square()
    column_exponents = precisions[..., 1:2] * columns.square()
    return (
        column_exponents.clamp(min=_SMALLEST_EXPONENT).exp(),
        row_exponents.clamp(min=_SMALLEST_EXPONENT).exp(),
    )


def _regression(output: StudentOutput, batch: TrainingBatch, config: LossConfig) -> Tensor:
    targets = (batch.keypoints / batch.crop_size_wh).to(output.keypoints)
    weights = batch.keypoint_weights.to(output.keypoints)
    return regression_loss(output.keypoints, targets, weights, config.regression_kind)


def _simulated_heatmap(output: StudentOutput, batch: TrainingBatch, config: LossConfig) -> Tensor:
    heatmaps, scale = _require_heatmaps(batch)
    points = keypoints_to_heatmap(output.keypoints, batch)
    weights = distilled_weights(batch, config).to(points)
    return simulated_heatmap_loss(
        points, output.sigmas, heatmaps, weights, scale, config.sigma_floor
    )


def _confidence(output: StudentOutput, batch: TrainingBatch, config: LossConfig) -> Tensor:
    heatmaps, scale = _require_heatmaps(batch)
    points = keypoints_to_heatmap(output.keypoints, batch)
    weights = distilled_weights(batch, config).to(points)
    return confidence_loss(output.scores, points, heatmaps, weights, scale)


LOSS_OF_TERM: Mapping[str, Callable[[StudentOutput, TrainingBatch, LossConfig], Tensor]] = {
    "regression": _regression,
    "simulated_heatmap": _simulated_heatmap,
    "confidence": _confidence,
}
"""The loss of every term, by the name of its weight in ``LossConfig``."""


def _require_teacher(batch: TrainingBatch) -> TeacherBatch:
    if batch.teacher is None:
        raise ConfigError(
            "the configured loss terms need a teacher's predictions, but the batch holds none; "
            "train from a teacher store, or set their weights to 0"
        )
    return batch.teacher


def _require_heatmaps(batch: TrainingBatch) -> tuple[Tensor, Tensor | None]:
    teacher = _require_teacher(batch)
    heatmaps, scale = teacher.heatmaps, teacher.scale
    if heatmaps is None:
        raise ConfigError(
            "loss.simulated_heatmap and loss.confidence need a teacher's heatmaps, but the batch "
            "holds none; train from a store with heatmaps, or set both weights to 0"
        )
    if scale is None and not heatmaps.is_floating_point():
        raise ConfigError(
            f"heatmaps must be floats or have a scale, got {heatmaps.dtype} without a scale"
        )
    return heatmaps, scale


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
