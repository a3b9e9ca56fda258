"""Where the time of a training step of distilpose-xs goes, and what changes it, on one core:
python docs/measure_step.py

All variants take turns on the same batch, in processor time, so that a busy machine slows all of
them alike. Shares are those of torch's profiler, by operator.
"""

import sys

import numpy as np
import torch
from torch.optim import Adam

from pipeline.benchmarks.figures import seconds_in_turns
from pipeline.benchmarks.steps import FIVE_TERMS, drawn_batch, learner_of, student_and_info
from pipeline.settings import Precision
from pipeline.training.training_step import BatchLoss, Learner

STUDENT, BATCH, ROUNDS = "distilpose-xs", 64, 5
CPU = torch.device("cpu")
FLOAT32: Precision = "float32"


def learner(precision: Precision = FLOAT32) -> Learner:
    shape = student_and_info(STUDENT)[0].token_shape
    return learner_of(STUDENT, FIVE_TERMS, BATCH, CPU, precision, shape)


def contiguous() -> Learner:
    made = learner()
    made.network.to(memory_format=torch.contiguous_format)
    return made


def unfused() -> Learner:
    made = learner()
    made.optimizer = Adam(made._weights, lr=1e-3, foreach=False)
    return made


def compiled() -> Learner:
    made = learner()
    assert isinstance(made._loss_of, BatchLoss)
    made._loss_of.network = torch.compile(made.network)  # type: ignore[assignment]
    return made


def folded() -> Learner:
    """Without batch normalisation: what folding it into the convolutions could save at most."""
    made = learner()
    for module in list(made.network.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.Identity())
    return made


def profile() -> None:
    """Print the share of each operator of a step."""
    network, _ = student_and_info(STUDENT)
    batch = drawn_batch(network, BATCH, network.token_shape, (64, 48))
    made = learner()
    made.step(batch, 0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for step in range(1, 4):
            made.step(batch, step)
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    for row in rows[:14]:
        print(f"{row.self_cpu_time_total / total:6.1%}  {row.key}")


def compare() -> None:
    """Print the time of each variant, and its speed relative to the training's own."""
    network, _ = student_and_info(STUDENT)
    batch = drawn_batch(network, BATCH, network.token_shape, (64, 48))
    made = {
        "as trained (channels last, fused Adam)": learner(),
        "contiguous in place of channels last": contiguous(),
        "Adam weight by weight in place of fused": unfused(),
        "without batch normalisation": folded(),
        "bfloat16": learner("bfloat16"),
        "torch.compile": compiled(),
    }
    ways = {name: (lambda step, one=one: one.step(batch, step)) for name, one in made.items()}
    seconds = seconds_in_turns(ways, [0], ROUNDS)
    ours = next(iter(seconds.values()))
    for name, spent in seconds.items():
        rate, ratio = BATCH / np.median(spent), np.median(ours / spent)
        print(f"{rate:6.0f} crops/s  {ratio:5.2f}  {name}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    profile()
    sys.stdout.flush()
    compare()
