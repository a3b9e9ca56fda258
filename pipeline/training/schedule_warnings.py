"""Settings of a schedule under which a training can hardly learn, told before its first step."""

from collections.abc import Iterator

from pipeline.training.settings import OptimisationConfig

_LARGEST_WARMUP = 0.1
"""Fraction of the training that a warm-up should take at most; the released recipe's takes 0.3 %
of it."""


def warn_of_schedule(
    config: OptimisationConfig, num_steps: int, distillation_warmup_steps: int = 0
) -> Iterator[str]:
    """Yield a line for each setting that keeps a training of ``num_steps`` steps from learning."""
    warmup, rate = config.warmup_steps, config.learning_rate
    fitting = max(1, int(_LARGEST_WARMUP * num_steps))
    way_out = f"set optimisation.warmup_steps={fitting} or train for more --epochs"
    if warmup >= num_steps:
        yield (
            f"the learning rate never leaves its warm-up of {warmup} steps, as the training has "
            f"{num_steps}: it reaches {rate * num_steps / warmup:.2g} of {rate:.2g}; {way_out}"
        )
    elif warmup > _LARGEST_WARMUP * num_steps:
        yield (
            f"the warm-up takes {warmup} of {num_steps} steps, more than a tenth of the training; "
            f"{way_out}"
        )
    if config.schedule == "cosine" and config.min_learning_rate == rate:
        yield (
            f"the learning rate never leaves its floor, optimisation.min_learning_rate, {rate:.2g};"
            " give a higher --learning-rate"
        )
    if distillation_warmup_steps >= num_steps:
        yield (
            f"the distilled terms never reach their weights: loss.distillation_warmup_steps is "
            f"{distillation_warmup_steps}, and the training has {num_steps}; set it to "
            f"{fitting} or less"
        )


def warn_of_validation(
    has_validation: bool, epochs: int, evaluate_every_epochs: int
) -> Iterator[str]:
    """Yield a line where nothing tells during a training whether the student learns."""
    if not has_validation:
        yield (
            "nothing will tell whether the student learns, and its last weights count as its best; "
            "give --val-annotations"
        )
    elif evaluate_every_epochs > epochs:
        yield (
            f"the student is validated once, at the end: evaluate_every_epochs is "
            f"{evaluate_every_epochs}, and the training has {epochs}; set evaluate_every_epochs="
            f"{max(1, epochs // 10)}"
        )
