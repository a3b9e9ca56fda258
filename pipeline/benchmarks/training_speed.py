"""What a training step costs beside its limits: plain, distilled, with the teacher in the loop.

All ways take turns on the same batch, so that a busy machine slows all of them alike. Peak memory
is that of a process of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.benchmarks.figures import seconds_in_turns
from pipeline.benchmarks.processes import in_fresh_process
from pipeline.benchmarks.steps import (
    FIVE_TERMS,
    SKELETON,
    drawn_batch,
    learner_of,
    open_random_teacher,
    save_random_teacher,
    seconds_on,
    student_and_info,
    terms_for,
    with_teacher_crops,
)
from pipeline.evaluation.peak_memory import peak_of_this_process
from pipeline.models.token_encoder import TokenShape
from pipeline.settings import Precision
from pipeline.training.batch import TrainingBatch
from pipeline.training.training_step import Learner

HEATMAP_SIZE_HW = (64, 48)
_STEPS_OF_PEAK = 3


@dataclass(frozen=True)
class StepPlan:
    """How steps are measured."""

    batch_size: int
    num_rounds: int
    device: torch.device
    precision: Precision


@dataclass(frozen=True)
class DistilledStep:
    """A student's step with all five terms beside its plain step, on the same crops."""

    student: str
    plain_seconds: float
    """Median of a crop's share."""
    distilled_seconds: float
    ratio: float
    """Distilled over plain, median over rounds."""


@dataclass(frozen=True)
class TeacherInLoop:
    """A step with the teacher in the loop beside a step whose targets are stored."""

    student: str
    teacher: str
    terms: tuple[str, ...]
    step_seconds: float
    """Step with stored targets, median of a crop's share."""
    teacher_seconds: float
    """The teacher alone."""
    loop_seconds: float
    """Step with the teacher in the loop."""
    ratio: float
    """Step with the teacher in the loop over step with stored targets, median over rounds."""
    limit: float
    """(Step with stored targets + teacher alone) / step with stored targets, likewise."""
    step_peak_mb: float
    """Peak memory of a process that makes steps with stored targets."""
    loop_peak_mb: float
    """Peak memory of one that makes steps with the teacher in the loop."""


def measure_distilled_step(student: str, plan: StepPlan) -> DistilledStep:
    """Time the steps of a student with all five terms, and plainly.

    The stored tokens have the student's shape.
    """
    shape = student_and_info(student)[0].token_shape
    ways: dict[str, Callable[[int], object]] = {}
    for name, loss in (("plain", FIVE_TERMS.without_teacher()), ("distilled", FIVE_TERMS)):
        learner = learner_of(student, loss, plan.batch_size, plan.device, plan.precision, shape)
        batch = _stored_batch(student, plan, shape)
        ways[name] = _steps(learner, batch)
    plain, distilled = _in_turns(ways, plan).values()
    return DistilledStep(
        student,
        float(np.median(plain)),
        float(np.median(distilled)),
        float(np.median(distilled / plain)),
    )


def measure_teacher_in_loop(
    student: str, teacher: str, plan: StepPlan, scratch: Path
) -> TeacherInLoop:
    """Time a student's steps with stored targets and with the teacher in the loop, and its teacher.

    scratch: folder for the weights of the teacher, which are random.
    """
    file = scratch / "teacher.safetensors"
    shape = save_random_teacher(teacher, file).token_shape
    loss = terms_for(student_and_info(student)[0].token_shape, shape)
    live = open_random_teacher(file, plan.batch_size, plan.device)
    stored = _stored_batch(student, plan, shape)
    in_loop = with_teacher_crops(stored, live)
    assert in_loop.teacher_crops is not None
    crops = in_loop.teacher_crops.numpy()
    settings = (student, loss, plan.batch_size, plan.device, plan.precision, shape)
    ways = {
        "step": _steps(learner_of(*settings), stored),
        "teacher": lambda _: live.predict(crops, SKELETON.flip_indices, loss.reads_tokens),
        "loop": _steps(learner_of(*settings, teacher=live), in_loop),
    }
    step, alone, loop = _in_turns(ways, plan).values()
    peaks = [
        in_fresh_process(_peak_megabytes, student, plan, file if has_teacher else None, shape)
        for has_teacher in (False, True)
    ]
    return TeacherInLoop(
        student=student,
        teacher=teacher,
        terms=tuple(loss.terms),
        step_seconds=float(np.median(step)),
        teacher_seconds=float(np.median(alone)),
        loop_seconds=float(np.median(loop)),
        ratio=float(np.median(loop / step)),
        limit=float(np.median((step + alone) / step)),
        step_peak_mb=peaks[0],
        loop_peak_mb=peaks[1],
    )


def _stored_batch(student: str, plan: StepPlan, shape: TokenShape | None) -> TrainingBatch:
    network, _ = student_and_info(student)
    return drawn_batch(network, plan.batch_size, shape, HEATMAP_SIZE_HW)


def _steps(learner: Learner, batch: TrainingBatch) -> Callable[[int], object]:
    return lambda step: learner.step(batch, step)


def _in_turns(
    ways: Mapping[str, Callable[[int], object]], plan: StepPlan
) -> dict[str, NDArray[np.float64]]:
    """Return (num_rounds,) seconds of a crop's share for each way."""
    seconds = seconds_in_turns(ways, [0], plan.num_rounds, seconds_on(plan.device))
    return {name: spent[:, 0] / plan.batch_size for name, spent in seconds.items()}


def _peak_megabytes(
    student: str, plan: StepPlan, teacher: Path | None, shape: TokenShape | None
) -> float:
    """Return the peak memory of this process after some steps; that of the GPU on a GPU.

    Not a number where the system does not say it.
    """
    loss = terms_for(student_and_info(student)[0].token_shape, shape)
    batch = _stored_batch(student, plan, shape)
    live = None
    if teacher is not None:
        live = open_random_teacher(teacher, plan.batch_size, plan.device)
        batch = with_teacher_crops(batch, live)
    learner = learner_of(
        student, loss, plan.batch_size, plan.device, plan.precision, shape, teacher=live
    )
    for step in range(_STEPS_OF_PEAK):
        learner.step(batch, step)
    if plan.device.type == "cuda":
        return torch.cuda.max_memory_allocated(plan.device) / 1e6
    peak = peak_of_this_process()
    return float("nan") if peak is None else peak / 1e6
