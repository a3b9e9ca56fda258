"""Student and teacher -> what a training step costs here, each figure beside its limit."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.benchmarks.figures import Bounded, Measured, write_figures
from pipeline.benchmarks.shared_training import SharedTraining, measure_shared_training
from pipeline.benchmarks.training_speed import (
    DistilledStep,
    StepPlan,
    TeacherInLoop,
    measure_distilled_step,
    measure_teacher_in_loop,
)
from pipeline.machine import choose_device
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.training.training_step import choose_precision
from stages.settings.benchmark import BenchmarkTrainConfig

LARGEST_SHARE = 1.05
"""A step with all five terms, relative to the plain step."""
SMALLEST_SAVING = 0.95
"""What stored targets save, relative to the teacher's whole forward pass."""
SMALLEST_SPEED_UP = 1.8
"""Speed of two processes, relative to one."""


@dataclass(frozen=True)
class TrainFigures:
    """All that was measured of training steps."""

    distilled: tuple[DistilledStep, ...]
    in_loop: TeacherInLoop
    shared: SharedTraining

    @property
    def bounded(self) -> tuple[Bounded, ...]:
        """The figures beside their limits."""
        loop, shared = self.in_loop, self.shared
        return (
            *(
                Bounded(f"{step.student}: five terms / plain", step.ratio, LARGEST_SHARE)
                for step in self.distilled
            ),
            Bounded(
                f"{loop.teacher} in the loop of {loop.student} / stored targets",
                loop.ratio,
                SMALLEST_SAVING * loop.limit,
                is_largest=False,
            ),
            Bounded(
                f"{shared.student}: two processes / one, by the clock",
                shared.speed_up,
                SMALLEST_SPEED_UP,
                is_largest=False,
            ),
            Bounded(
                f"{shared.student}: the same of processor time",
                shared.processor_speed_up,
                SMALLEST_SPEED_UP,
                is_largest=False,
            ),
        )


def benchmark_train(
    config: BenchmarkTrainConfig, progress: Progress = NO_PROGRESS
) -> Measured[TrainFigures]:
    """Time training steps: plain, distilled, with the teacher in the loop, in two processes.

    progress: counts measurements.

    Raises:
        ConfigError: there is no such architecture or device.
    """
    device = choose_device(config.device, config.num_threads)
    precision = choose_precision(config.precision, device, None)
    plan = StepPlan(config.batch_size, config.rounds, device, precision)
    total = len(config.students) + 2
    distilled = []
    for done, student in enumerate(config.students):
        progress.update(done, total)
        distilled.append(measure_distilled_step(student, plan))
    progress.update(total - 2, total)
    loop_plan = StepPlan(config.loop_batch_size, config.rounds, device, precision)
    with tempfile.TemporaryDirectory() as scratch:
        student = config.students[-1]
        in_loop = measure_teacher_in_loop(student, config.teacher, loop_plan, Path(scratch))
    progress.update(total - 1, total)
    shared = measure_shared_training(config.students[0], config.shared_batch_size, config.rounds)
    progress.update(total, total)
    figures = TrainFigures(tuple(distilled), in_loop, shared)
    document = {**asdict(figures), "limits": [asdict(figure) for figure in figures.bounded]}
    return Measured(figures, write_figures(config.output, "train.json", config, document))
