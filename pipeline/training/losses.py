"""The terms of a student's loss, and their sum.

The first ones are those of DistilPose (CVPR 2023), without the defects of its released code.

Every term is a mean over the full count (B K 2, B K Hh Wh or B K), not over the labelled keypoints.
One affine per sample, crop_to_heatmap, maps the student's point for both distilled terms, so that
the centre of the simulated Gaussian and the cell whose heat the score learns always agree. Targets
of keypoints whose weight is 0 may be NaN: they reach no loss and no gradient.

To add a term:
  1. write its mathematics as a function of tensors, in ``regression_losses.py``,
     ``heatmap_losses.py`` or a file beside them;
  2. write the few lines that call it with (output, batch, parts), as ``_moments`` does;
  3. add that function to ``LOSS_OF_TERM`` under the name of its weight;
  4. give the weight a field of ``LossConfig`` (settings.py), marked with the fields it reads;
  5. what a term needs besides the batch, such as constants of the skeleton or a module with
     parameters of its own, belongs to ``LossParts`` (loss_parts.py): the optimiser and the training
     state then include it, and it moves to the device with the criterion.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.heads import StudentOutput
from pipeline.models.token_encoder import Tokens
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.covariance_losses import covariance_loss
from pipeline.training.heatmap_losses import (
    confidence_loss,
    heatmap_loss,
    known_heat_at,
    render_gaussians,
    simulated_heatmap_loss,
)
from pipeline.training.loss_parts import LossContext, LossParts
from pipeline.training.moment_losses import moments_loss, peak_moments
from pipeline.training.regression_losses import regression_loss
from pipeline.training.residual_flow import residual_likelihood_loss
from pipeline.training.score_losses import expected_score_loss, keypoint_similarity
from pipeline.training.settings import LossConfig
from pipeline.training.token_losses import token_loss

NOTHING_KNOWN = LossContext()
AUXILIARY_SIGMA = 2.0
"""Standard deviation of the Gaussians that a heatmap head beside the student's learns, in cells."""


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

    Raises:
        ConfigError: a configured term needs what the context lacks.
    """

    is_scored: Tensor

    def __init__(
        self, config: LossConfig, num_keypoints: int, context: LossContext = NOTHING_KNOWN
    ) -> None:
        super().__init__()
        self.config = config
        self.parts = LossParts(config, num_keypoints, context)
        # A buffer on the device, so that updating it does not wait for the device.
        self.register_buffer("is_scored", torch.zeros(num_keypoints).bool(), persistent=False)

    @property
    def reads_tokens(self) -> bool:
        return self.config.reads_tokens or "auxiliary_heatmap" in self.config.terms

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
                keypoints=at_least_float32(output.keypoints),
                scores=at_least_float32(output.scores),
                sigmas=at_least_float32(output.sigmas),
                tokens=output.tokens and Tokens(*map(at_least_float32, output.tokens)),
                shears=None if output.shears is None else at_least_float32(output.shears),
            )
            if "confidence" in self.config.terms:
                self.is_scored |= (scored_weights(batch, self.config) > 0).any(dim=0)
            terms = {
                name: LOSS_OF_TERM[name](output, batch, self.parts) for name in self.config.terms
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
    """Return (B, K) in {0, 1}: the keypoints whose Gaussians learn from the teacher's heatmaps.

    They are the labelled keypoints inside the crop and, of people without any label, those that the
    teacher is confident of inside the crop.
    """
    if config.distil_unlabelled_keypoints:
        return torch.ones_like(batch.keypoint_weights)
    confident = teacher_weights(batch, config) > 0
    return torch.where(_is_unlabelled_person(batch) & confident, 1.0, batch.keypoint_weights)


def scored_weights(batch: TrainingBatch, config: LossConfig) -> Tensor:
    """Return (B, K) in {0, 1}: the keypoints whose scores are taught.

    They are the labelled keypoints inside the crop and, where scores learn the teacher's heat, all
    keypoints of people without any label: a score must learn low heat too.
    """
    if config.score_target == "oks_of_labels":
        return batch.keypoint_weights
    if config.distil_unlabelled_keypoints:
        return torch.ones_like(batch.keypoint_weights)
    return torch.where(_is_unlabelled_person(batch), 1.0, batch.keypoint_weights)


def teacher_weights(batch: TrainingBatch, config: LossConfig) -> Tensor:
    """Return (B, K) in [0, 1], the weights of the teacher's keypoints.

    0 below ``teacher_threshold`` and outside the student's crop.
    """
    teacher = _require_teacher(batch)
    confidences, weights = teacher.confidences, teacher.keypoint_weights
    if confidences is None or weights is None:
        raise ConfigError(
            "the configured loss terms need a teacher's keypoints, but the batch holds none; train "
            "from a teacher store"
        )
    is_used = (confidences >= config.teacher_threshold) & (weights > 0)
    if config.teacher_weighting == "confidence":
        weights = confidences.clamp(max=1.0)
    return torch.where(is_used, weights, 0.0)


def _is_unlabelled_person(batch: TrainingBatch) -> Tensor:
    return ~batch.is_labelled.any(dim=1, keepdim=True)  # (B, 1)


def _regression(output: StudentOutput, batch: TrainingBatch, parts: LossParts) -> Tensor:
    targets = (batch.keypoints / batch.crop_size_wh).to(output.keypoints)
    return _distance(output, targets, batch.keypoint_weights.to(targets), parts)


def _teacher_regression(output: StudentOutput, batch: TrainingBatch, parts: LossParts) -> Tensor:
    weights = teacher_weights(batch, parts.config)
    keypoints = _require_teacher(batch).keypoints
    assert keypoints is not None  # they come with their confidences
    if parts.config.teacher_regression_on == "unlabelled":
        weights = torch.where(batch.is_labelled, 0.0, weights)
    targets = (keypoints / batch.crop_size_wh).to(output.keypoints)
    return _distance(output, targets, weights.to(targets), parts)


def _distance(output: StudentOutput, targets: Tensor, weights: Tensor, parts: LossParts) -> Tensor:
    """Return the configured distance of the keypoints to targets (B, K, 2), fractions of the crop.

    That of rle is measured in the cells that sigmas are measured in.
    """
    kind = parts.config.regression_kind
    if kind != "rle":
        return regression_loss(output.keypoints, targets, weights, kind)
    assert parts.flow is not None  # it belongs to this kind
    cells = parts.cells_wh.to(targets)
    keypoints, floor = output.keypoints * cells, parts.config.sigma_floor
    return residual_likelihood_loss(
        keypoints, output.sigmas, targets * cells, weights, parts.flow, floor
    )


def _simulated_heatmap(output: StudentOutput, batch: TrainingBatch, parts: LossParts) -> Tensor:
    teacher, heatmaps = require_heatmaps(batch)
    points = keypoints_to_heatmap(output.keypoints, batch)
    weights = distilled_weights(batch, parts.config).to(points)
    return simulated_heatmap_loss(
        points,
        output.sigmas,
        heatmaps,
        weights,
        teacher.scale,
        parts.config.sigma_floor,
        teacher.is_known,
    )


def _keypoint_token(output: StudentOutput, batch: TrainingBatch, parts: LossParts) -> Tensor:
    targets = _require_teacher(batch).keypoint_tokens
    return token_loss(*_comparable(_projected_tokens(output, parts).keypoint_tokens, targets))


def _visual_token(output: StudentOutput, batch: TrainingBatch, parts: LossParts) -> Tensor:
    targets = _require_teacher(batch).visual_tokens
    return token_loss(*_comparable(_projected_tokens(output, parts).visual_tokens, targets))


def _tokens(output: StudentOutput) -> Tokens:
    if output.tokens is None:
        raise ConfigError("a loss term reads the student's tokens, but its output has none")
    return output.tokens


def _projected_tokens(output: StudentOutput, parts: LossParts) -> Tokens:
    tokens, projector = _tokens(output), parts.token_projector
    return tokens if projector is None else projector(tokens)


def _comparable(tokens: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
    if targets is None or tokens.shape != targets.shape:
        found = "none" if targets is None else f"tokens of shape {tuple(targets.shape)}"
        raise ConfigError(
            f"loss.keypoint_token and loss.visual_token need a teacher's tokens of shape "
            f"{tuple(tokens.shape)}, but the batch holds {found}; set loss.token_projector, or "
            "both weights to 0"
        )
    return tokens, targets


def _moments(output: StudentOutput, batch: TrainingBatch, parts: LossParts) -> Tensor:
    teacher, heatmaps = require_heatmaps(batch)
    points = keypoints_to_heatmap(output.keypoints, batch)
    weights = distilled_weights(batch, parts.config).to(points)
    target = peak_moments(heatmaps, teacher.is_known)
    return moments_loss(points, output.sigmas, target, weights, parts.config.sigma_floor)


def _auxiliary_heatmap(output: StudentOutput, batch: TrainingBatch, parts: LossParts) -> Tensor:
    assert parts.heatmap_head is not None  # it belongs to this term
    heatmaps = parts.heatmap_head(_tokens(output).keypoint_tokens)
    if parts.config.auxiliary_heatmap_target == "truth":
        cells_per_pixel = (parts.cells_wh / batch.crop_size_wh).to(heatmaps)
        keypoints = torch.where(batch.keypoint_weights[..., None] > 0, batch.keypoints, 0.0)
        points = (keypoints.to(heatmaps) + 0.5) * cells_per_pixel - 0.5
        sigmas = torch.full_like(points, AUXILIARY_SIGMA)
        targets = render_gaussians(points, sigmas, heatmaps.shape[-2:])
        return heatmap_loss(heatmaps, targets, batch.keypoint_weights.to(heatmaps))
    teacher, stored = require_heatmaps(batch)
    targets = stored.to(heatmaps)
    if teacher.scale is not None:
        targets = targets * teacher.scale[..., None, None].to(heatmaps)
    weights = distilled_weights(batch, parts.config).to(heatmaps)
    return heatmap_loss(heatmaps, targets, weights, teacher.is_known)


def _covariance(output: StudentOutput, batch: TrainingBatch, parts: LossParts) -> Tensor:
    if output.shears is None:
        raise ConfigError("loss.covariance needs a student with the channel of the shear")
    cells = parts.cells_wh.to(output.keypoints)
    targets = (batch.keypoints / batch.crop_size_wh).to(output.keypoints) * cells
    return covariance_loss(
        output.keypoints * cells,
        output.sigmas,
        output.shears,
        targets,
        batch.keypoint_weights.to(targets),
        parts.config.sigma_floor,
    )


def _confidence(output: StudentOutput, batch: TrainingBatch, parts: LossParts) -> Tensor:
    weights = scored_weights(batch, parts.config).to(output.scores)
    target = parts.config.score_target
    if target == "heat":
        teacher, heatmaps = require_heatmaps(batch)
        points = keypoints_to_heatmap(output.keypoints, batch)
        return confidence_loss(
            output.scores, points, heatmaps, weights, teacher.scale, teacher.is_known
        )
    keypoints = output.keypoints.detach()
    truth = batch.keypoints.to(keypoints)
    in_pixels = keypoints * batch.crop_size_wh.to(keypoints)
    targets = keypoint_similarity(in_pixels, truth, batch.areas, parts.oks_sigmas)
    if target == "oks":
        teacher, heatmaps = require_heatmaps(batch)
        points = keypoints_to_heatmap(keypoints, batch)
        heat, has_heat = known_heat_at(points, heatmaps, teacher.scale, teacher.is_known)
        has_truth = batch.keypoint_weights > 0
        targets = torch.where(has_truth, targets, heat.to(targets))
        weights = torch.where(has_truth | has_heat, weights, 0.0)
    return expected_score_loss(output.scores, targets, weights)


LOSS_OF_TERM: Mapping[str, Callable[[StudentOutput, TrainingBatch, LossParts], Tensor]] = {
    "regression": _regression,
    "simulated_heatmap": _simulated_heatmap,
    "confidence": _confidence,
    "teacher_regression": _teacher_regression,
    "keypoint_token": _keypoint_token,
    "visual_token": _visual_token,
    "moments": _moments,
    "auxiliary_heatmap": _auxiliary_heatmap,
    "covariance": _covariance,
}
"""The loss of every term, by the name of its weight in ``LossConfig``."""


def _require_teacher(batch: TrainingBatch) -> TeacherBatch:
    if batch.teacher is None:
        raise ConfigError(
            "the configured loss terms need a teacher's predictions, but the batch holds none; "
            "train from a teacher store, or set their weights to 0"
        )
    return batch.teacher


def require_heatmaps(batch: TrainingBatch) -> tuple[TeacherBatch, Tensor]:
    """Return the teacher's predictions and their heatmaps, or raise ConfigError without any."""
    teacher = _require_teacher(batch)
    heatmaps = teacher.heatmaps
    if heatmaps is None:
        raise ConfigError(
            "loss.simulated_heatmap, loss.moments and loss.confidence need a teacher's heatmaps, "
            "but the batch holds none; train from a store with heatmaps, or set these weights to 0"
        )
    if teacher.scale is None and not heatmaps.is_floating_point():
        raise ConfigError(
            f"heatmaps must be floats or have a scale, got {heatmaps.dtype} without a scale"
        )
    return teacher, heatmaps


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor of half precision as float32, and any other unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
