"""The optimiser and the learning rate as a pure function of the step.

Weight decay leaves out one-dimensional parameters (norms, biases) and learned tokens and positions,
as in timm's ViTs. Schedules are timm's, counted in steps.
"""

import torch
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined]
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from pipeline.training.settings import OptimisationConfig

_WARMUP_START = 1e-3
"""Fraction of the learning rate that a warm-up begins with, as in DistilPose's released code."""

_TOKEN_PATTERNS = ("*token", "*tokens", "*token.*", "*pos_embed*", "*position*")


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
