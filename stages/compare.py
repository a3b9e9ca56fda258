"""Networks side by side on the same people: one table, and the difference person by person."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pipeline.coco.people import People
from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.config import StageConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.comparison import (
    Arm,
    ArmDifference,
    comparison_json,
    mean_pose_arm,
    oks_difference,
    student_arm,
    teacher_arm,
)
from pipeline.prediction.networks import best_weights
from pipeline.storage.files import publish
from pipeline.teachers import TeacherSettings


class CompareConfig(StageConfig):
    """All settings of ``distil compare``."""

    annotations: Path
    images: Path
    arms: tuple[tuple[str, Path], ...]
    """(name, run folder) of students; the same name again is the same arm under another seed."""
    teacher: Path | None = None
    teacher_settings: TeacherSettings = TeacherSettings(flip_test=True)
    mean_pose: Path | None = None
    """Training annotations, whose mean pose is put into every box: what a network must beat."""
    people: PeopleSettings = PeopleSettings()
    seed: int = Field(0, ge=0)
    """Of the bootstrap."""
    output: Path | None = None
    """JSON file for all figures."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.arms:
            raise ValueError("nothing to compare; name arms as name=run_folder")
        counts = {name: self.seeds_of(name) for name, _ in self.arms}
        if len(set(counts.values())) > 1:
            raise ValueError(f"arms need as many run folders each (one per seed), got {counts}")
        return self

    def seeds_of(self, name: str) -> int:
        return sum(other == name for other, _ in self.arms)


@dataclass(frozen=True)
class Comparison:
    """What a comparison found."""

    arms: list[Arm]
    """Mean pose, teacher, then the students in the order given."""
    differences: list[ArmDifference]
    """Of mean OKS: the first student arm minus each of the others."""
    num_people: int


def compare(config: CompareConfig) -> Comparison:
    """Measure all arms on the same people, and write the figures to ``config.output``.

    Raises:
        DistilError: an input is at fault; nothing is written.
    """
    people = read_people(config.annotations, config.images, config.people)
    arms: list[Arm] = []
    if config.mean_pose is not None:
        arms.append(mean_pose_arm(_train_people(config, config.mean_pose, people), people))
    if config.teacher is not None:
        arms.append(teacher_arm(config.teacher, config.teacher_settings, people, config.images))
    students = [
        student_arm(name, best_weights(run_folder), people, config.images)
        for name, run_folder in config.arms
    ]
    first, *others = dict.fromkeys(name for name, _ in config.arms)
    differences = [oks_difference(students, first, other, config.seed) for other in others]

    comparison = Comparison([*arms, *students], differences, people.num_instances)
    if config.output is not None:
        publish(config.output, comparison_json(comparison.arms, differences).encode())
    return comparison


def _train_people(config: CompareConfig, annotations: Path, people: People) -> People:
    train = read_people(annotations, None, config.people)
    if train.skeleton.keypoint_names != people.skeleton.keypoint_names:
        raise ConfigError(
            f"mean_pose {annotations} has other keypoints than {config.annotations}; give the "
            "training annotations of the same keypoints"
        )
    return train
