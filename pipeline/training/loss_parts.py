"""What the loss terms need besides a batch: settings, constants, and modules that are trained."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.heads import HeatmapHead
from pipeline.models.token_encoder import TokenShape
from pipeline.training.residual_flow import ResidualFlow
from pipeline.training.settings import LossConfig
from pipeline.training.token_losses import TokenProjector


@dataclass(frozen=True)
class LossContext:
    """What is known of skeleton, student and teacher before the first batch."""

    oks_sigmas: tuple[float, ...] = ()
    """(K,), those of the skeleton; empty: it has none."""
    student_tokens: TokenShape | None = None
    """None: the student has no tokens."""
    teacher_tokens: TokenShape | None = None
    """None: the teacher has no tokens, or they are not stored."""
    heatmap_size_hw: tuple[int, int] = (64, 48)
    """Size of the heatmaps over a crop whose cells the student's sigmas are measured in."""


class LossParts(nn.Module):
    """The settings of the terms, and what the configured ones need besides a batch.

    num_keypoints: K.

    Raises:
        ConfigError: a configured term needs what the context lacks.
    """

    oks_sigmas: Tensor
    cells_wh: Tensor

    def __init__(self, config: LossConfig, num_keypoints: int, context: LossContext) -> None:
        super().__init__()
        self.config = config
        if config.scores_learn_oks and len(context.oks_sigmas) != num_keypoints:
            raise ConfigError(
                f"loss.score_target is {config.score_target}, which needs one OKS sigma for each "
                f"of {num_keypoints} keypoints, but the skeleton has {len(context.oks_sigmas)}; "
                "give sigmas in people.skeleton, or set loss.score_target to heat"
            )
        self.register_buffer("oks_sigmas", torch.tensor(context.oks_sigmas), persistent=False)
        cells = torch.tensor(context.heatmap_size_hw[::-1], dtype=torch.float32)
        self.register_buffer("cells_wh", cells, persistent=False)
        self.flow = ResidualFlow() if config.learns_residuals else None
        self.token_projector = _token_projector(config, context)
        self.heatmap_head = _heatmap_head(config, context)


def _token_projector(config: LossConfig, context: LossContext) -> TokenProjector | None:
    if not config.reads_tokens or not config.token_projector:
        return None
    if context.student_tokens is None or context.teacher_tokens is None:
        lacking = "student" if context.student_tokens is None else "teacher"
        raise ConfigError(
            f"loss.token_projector maps the student's tokens to the teacher's, but the {lacking} "
            "has none; choose another, or set loss.keypoint_token and loss.visual_token to 0"
        )
    return TokenProjector(context.student_tokens, context.teacher_tokens)


def _heatmap_head(config: LossConfig, context: LossContext) -> HeatmapHead | None:
    if "auxiliary_heatmap" not in config.terms:
        return None
    if context.student_tokens is None:
        raise ConfigError(
            "loss.auxiliary_heatmap reads the student's keypoint tokens, but it has none; choose "
            "another, or set the weight to 0"
        )
    dim = context.student_tokens.dim
    return HeatmapHead(dim, 2 * dim, context.heatmap_size_hw)  # TokenPose's proportion
