"""Student and teacher -> what each takes a person in one runtime, beside their multiply-adds."""

from dataclasses import asdict, dataclass

from pipeline.benchmarks.figures import Bounded, Measured, write_figures
from pipeline.benchmarks.steps import NUM_KEYPOINTS
from pipeline.evaluation.inference_cost import (
    LARGE_BATCH,
    Cost,
    Milliseconds,
    TimedNetwork,
    measure_costs,
)
from pipeline.models.pose_networks import build_student, build_teacher
from pipeline.progress import NO_PROGRESS, Progress
from stages.settings.benchmark import BenchmarkInferenceConfig

PUBLISHED_RATIO = 7.16
"""Multiply-adds of DistilPose's teacher over those of its small student, as published."""
PUBLISHED_SPEED_UP = 4.9
"""Speed of that student over that of its teacher, as the paper measured it."""


@dataclass(frozen=True)
class InferenceFigures:
    """What a student and a teacher cost to run, with random weights."""

    student: str
    teacher: str
    student_cost: Cost
    teacher_cost: Cost
    notes: tuple[str, ...]

    @property
    def rows(self) -> tuple[tuple[str, Cost], ...]:
        """Names and costs of both."""
        return ((self.student, self.student_cost), (self.teacher, self.teacher_cost))

    @property
    def bounded(self) -> tuple[Bounded, ...]:
        """The ratios of teacher and student."""
        student, teacher = self.student_cost, self.teacher_cost

        def ratio(teachers: Milliseconds, students: Milliseconds) -> float:
            return teachers.minimum / students.minimum

        products = teacher.num_multiply_adds / student.num_multiply_adds
        return (
            Bounded("multiply-adds, teacher / student", products, None),
            Bounded("time at batch 1, teacher / student", ratio(teacher.batch_1, student.batch_1),
                    None),
            Bounded(f"time at batch {LARGE_BATCH}, teacher / student",
                    ratio(teacher.batch_64, student.batch_64), None),
        )  # fmt: skip


def benchmark_inference(
    config: BenchmarkInferenceConfig, progress: Progress = NO_PROGRESS
) -> Measured[InferenceFigures]:
    """Time a student and a teacher in turns, in one runtime, on one core.

    progress: counts measurements.

    Raises:
        ConfigError: there is no such architecture.
    """
    progress.update(0, 1)
    student = build_student(config.student, NUM_KEYPOINTS).eval()
    teacher = build_teacher(config.teacher, NUM_KEYPOINTS).eval()
    networks = {
        "student": TimedNetwork(student, student.input_size_hw),
        "teacher": TimedNetwork(teacher, teacher.input_size_hw),
    }
    costs, notes = measure_costs(networks, {1: 6 * config.rounds, LARGE_BATCH: config.rounds})
    progress.update(1, 1)
    figures = InferenceFigures(
        config.student, config.teacher, costs["student"], costs["teacher"], notes
    )
    document = {**asdict(figures), "ratios": [asdict(figure) for figure in figures.bounded]}
    return Measured(figures, write_figures(config.output, "inference.json", config, document))
