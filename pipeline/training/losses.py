"""The terms of a student's loss, and their sum.

The first ones are those of DistilPose (CVPR 2023), without the defects of its released code.

Every term is a mean over the full count (B K 2, B K Hh Wh or B K), not over the labelled keypoints.
One affine per sample, crop_to_heatmap, maps the student's point for both distilled terms, so that
the centre of the simulated Gaussian and the cell whose heat the score learns always agree. Targets
of keypoints whose weight is 0 may be NaN: they reach no loss and no gradient.

To add a term:
  1. write its mathematics as a function of tensors, in ``regression_losses.py``,
     ``heatmap_losses.py`` or a file beside them;
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

from pipeline.errors import ConfigError
from pipeline.models.heads import StudentOutput
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.heatmap_losses import confidence_loss, simulated_heatmap_loss
from pipeline.training.regression_losses import regression_loss
from pipeline.training.settings import LossConfig


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
                self.is_scored |= (scored_weights(batch, self.config) > 0).any(dim=0)
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
    """Return (B, K) in {0, 1}: the keypoints whose Gaussians learn from the teacher's heatmaps.

    They are the labelled keypoints inside the crop and, of people without any label, those that the
    teacher is confident of inside the crop.
    """
    if config.distil_unlabelled_keypoints:
        return torch.ones_like(batch.keypoint_weights)
    confident = teacher_weights(batch, config) > 0
    return torch.where(_is_unlabelled_person(batch) & confident, 1.0, batch.keypoint_weights)


def scored_weights(batch: TrainingBatch, config: LossConfig) -> Tensor:
    """Return (B, K) in {0, 1}: the keypoints whose scores learn the teacher's heat.

    They are those of ``distilled_weights`` and all of people without any label: a score must learn
    low heat too.
    """
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


def _regression(output: StudentOutput, batch: TrainingBatch, config: LossConfig) -> Tensor:
    targets = (batch.keypoints / batch.crop_size_wh).to(output.keypoints)
    weights = batch.keypoint_weights.to(output.keypoints)
    return regression_loss(output.keypoints, targets, weights, config.regression_kind)


def _teacher_regression(output: StudentOutput, batch: TrainingBatch, config: LossConfig) -> Tensor:
    weights = teacher_weights(batch, config)
    keypoints = _require_teacher(batch).keypoints
    assert keypoints is not None  # they come with their confidences
    if config.teacher_regression_on == "unlabelled":
        weights = torch.where(batch.is_labelled, 0.0, weights)
    targets = (keypoints / batch.crop_size_wh).to(output.keypoints)
    return regression_loss(
        output.keypoints, targets, weights.to(output.keypoints), config.regression_kind
    )


def _simulated_heatmap(output: StudentOutput, batch: TrainingBatch, config: LossConfig) -> Tensor:
    teacher, heatmaps = _require_heatmaps(batch)
    points = keypoints_to_heatmap(output.keypoints, batch)
    weights = distilled_weights(batch, config).to(points)
    return simulated_heatmap_loss(
        points,
        output.sigmas,
        heatmaps,
        weights,
        teacher.scale,
        config.sigma_floor,
        teacher.is_known,
    )


def _confidence(output: StudentOutput, batch: TrainingBatch, config: LossConfig) -> Tensor:
    teacher, heatmaps = _require_heatmaps(batch)
    points = keypoints_to_heatmap(output.keypoints, batch)
    weights = scored_weights(batch, config).to(points)
    return confidence_loss(
        output.scores, points, heatmaps, weights, teacher.scale, teacher.is_known
    )


LOSS_OF_TERM: Mapping[str, Callable[[StudentOutput, TrainingBatch, LossConfig], Tensor]] = {
    "regression": _regression,
    "simulated_heatmap": _simulated_heatmap,
    "confidence": _confidence,
    "teacher_regression": _teacher_regression,
}
"""The loss of every term, by the name of its weight in ``LossConfig``."""


def _require_teacher(batch: TrainingBatch) -> TeacherBatch:
    if batch.teacher is None:
        raise ConfigError(
            "the configured loss terms need a teacher's predictions, but the batch holds none; "
            "train from a teacher store, or set their weights to 0"
        )
    return batch.teacher


def _require_heatmaps(batch: TrainingBatch) -> tuple[TeacherBatch, Tensor]:
    teacher = _require_teacher(batch)
    heatmaps = teacher.heatmaps
    if heatmaps is None:
        raise ConfigError(
            "loss.simulated_heatmap and loss.confidence need a teacher's heatmaps, but the batch "
            "holds none; train from a store with heatmaps, or set both weights to 0"
        )
    if teacher.scale is None and not heatmaps.is_floating_point():
        raise ConfigError(
            f"heatmaps must be floats or have a scale, got {heatmaps.dtype} without a scale"
        )
    return teacher, heatmaps


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
