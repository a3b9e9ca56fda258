"""The optimiser and the learning rate as a pure function of the step.

Weight decay spares one-dimensional parameters (norms, biases) and the learned tokens and positions,
as timm's ViTs do. Schedules are timm's, counted in steps.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined]
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from pipeline.config import ComponentConfig

_WARMUP_START = 1e-3
"""Fraction of the learning rate that the first step of a warm-up uses, as released."""

_TOKEN_PATTERNS = ("*token", "*tokens", "*token.*", "*pos_embed*", "*position*")


class OptimisationConfig(ComponentConfig):
    """How weights are moved. The defaults are DistilPose's released recipe (300 epochs)."""

    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(256, ge=1)
    schedule: Literal["step", "cosine", "constant"] = "step"
    decay_at: tuple[float, ...] = (200 / 300, 260 / 300)
    """``step``: fractions of the training after which the learning rate drops."""
    decay_rate: float = Field(0.1, gt=0, le=1)
    """``step``: factor of each drop."""
    min_learning_rate: float = Field(0.0, ge=0)
    """``cosine``: learning rate at the end."""
    warmup_steps: int = Field(500, ge=0)
    gradient_clip: float = Field(0.0, ge=0)
    """Largest norm of the gradient of all weights; 0: no limit."""

    @model_validator(mode="after")
    def _check(self) -> "OptimisationConfig":
        if list(self.decay_at) != sorted(self.decay_at) or not all(
            0 < x < 1 for x in self.decay_at
        ):
            raise ValueError(f"decay_at is {self.decay_at}; expected rising fractions of (0, 1)")
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError("weight_decay needs optimizer = 'adamw', which decouples it")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError("min_learning_rate exceeds learning_rate")
        return self


def build_optimizer(
    network: nn.Module, criterion: nn.Module, config: OptimisationConfig
) -> torch.optim.Optimizer:
    """Return the configured optimiser over the weights of a network and of its criterion.

    The fused kernel updates all weights in one pass, on the CPU too.
    """
    trained = nn.ModuleList([network, criterion])
    if config.optimizer == "adam":
        weights = [weight for weight in trained.parameters() if weight.requires_grad]
        return torch.optim.Adam(weights, lr=config.learning_rate, fused=True)
    groups = param_groups_weight_decay(
        trained, config.weight_decay, no_weight_decay_list=_TOKEN_PATTERNS
    )
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def build_scheduler(
    optimizer: torch.optim.Optimizer, config: OptimisationConfig, num_steps: int
) -> Scheduler:
    """Return the learning rate schedule; ``step_update(step)`` sets the rate of step 0, 1, ...

    num_steps: steps of the whole training.
    """
    warmup_steps = min(config.warmup_steps, num_steps)
    warmup_start = _WARMUP_START * config.learning_rate
    if config.schedule == "cosine":
        return CosineLRScheduler(
            optimizer,
            t_initial=num_steps,
            lr_min=config.min_learning_rate,
            warmup_t=warmup_steps,
            warmup_lr_init=warmup_start,
            t_in_epochs=False,
        )
    decay_at = config.decay_at if config.schedule == "step" else ()
    return MultiStepLRScheduler(
        optimizer,
        # timm drops the rate one index before the milestone.
        decay_t=[round(fraction * num_steps) + 1 for fraction in decay_at],
        decay_rate=config.decay_rate,
        warmup_t=warmup_steps,
        warmup_lr_init=warmup_start,
        warmup_prefix=False,
        t_in_epochs=False,
    )
