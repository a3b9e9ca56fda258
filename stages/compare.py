"""Networks side by side on the same people: one table, and the difference person by person."""

from dataclasses import dataclass

from pipeline.coco.read_people import read_people
from pipeline.coco.skeletons import describe_missing_sigmas
from pipeline.errors import ConfigError
from pipeline.evaluation.comparison import (
    Arm,
    ArmDifference,
    MeasuredNetwork,
    comparison_json,
    mean_pose_arm,
    oks_difference,
    student_arm,
    teacher_arm,
    with_costs,
)
from pipeline.storage.files import publish
from stages.settings.evaluation import CompareConfig


@dataclass(frozen=True)
class Comparison:
    """Figures of a comparison."""

    arms: list[Arm]
    """Mean pose, teacher, then the students in the order given."""
    differences: list[ArmDifference]
    """Differences of mean OKS: the first student arm minus each of the others; none without
    sigmas."""
    num_people: int
    notes: tuple[str, ...] = ()
    """Facts that a reader of the figures must know, a sentence each."""


def compare(config: CompareConfig) -> Comparison:
    """Measure all arms on the same people, and write the figures to ``config.output``.

    Raises:
        DistilError: an input is at fault; nothing is written.
    """
    people = read_people(config.annotations, config.images, config.people)
    arms: list[Arm] = []
    measured: list[MeasuredNetwork] = []
    if config.mean_pose is not None:
        train = read_people(config.mean_pose, None, config.people)
        if train.skeleton.keypoint_names != people.skeleton.keypoint_names:
            raise ConfigError(
                f"mean_pose {config.mean_pose} has other keypoints than {config.annotations}; give "
                "the training annotations of the same keypoints"
            )
        arms.append(mean_pose_arm(train, people))
    if config.teacher is not None:
        settings = config.teacher_settings.model_copy(update={"device": config.device})
        measured.append(teacher_arm(config.teacher, settings, people, config.images))
    measured += [
        student_arm(name, student, people, config.images, config.device)
        for name, student in config.arms
    ]
    arms += [found.arm for found in measured]
    students = arms[-len(config.arms) :]
    differences = []
    note = describe_missing_sigmas(people.skeleton)
    if note is None:
        first, *others = dict.fromkeys(name for name, _ in config.arms)
        differences = [oks_difference(students, first, other, config.seed) for other in others]

    notes = tuple(note for found in measured for note in found.notes)
    notes += () if note is None else (note,)
    if config.measure_cost:
        arms, on_costs = with_costs(arms, measured)
        notes += on_costs
    comparison = Comparison(arms, differences, people.num_instances, notes)
    if config.output is not None:
        publish(config.output, comparison_json(comparison.arms, differences).encode())
    return comparison
