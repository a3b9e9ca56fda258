"""Networks side by side on the same people: figures, cost, and the difference person by person."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.poses import PosePredictions, ScoreRule
from pipeline.errors import PeopleError
from pipeline.evaluation.inference_cost import Cost, TimedNetwork, measure_costs
from pipeline.evaluation.localisation import Difference, paired_bootstrap
from pipeline.evaluation.report import ComparisonRow, compare_figures, defined
from pipeline.frames.geometry import padded_box_size
from pipeline.prediction.estimators import (
    ExportedEstimator,
    StudentEstimator,
    TeacherEstimator,
    predict_people,
)
from pipeline.prediction.networks import (
    OpenedNetwork,
    open_heatmap_teacher,
    open_student_at,
)
from pipeline.settings import KEYPOINT_THRESHOLD, PADDING, DeviceName, TeacherSettings
from pipeline.teachers.opening import require_same_names
from pipeline.teachers.torch_network import ModuleNetwork
from pipeline.wording import counted

MEAN_POSE, TEACHER = "mean pose", "teacher"
_ASPECT_HW = (4, 3)
"""Height to width of the padded boxes that the mean pose is placed in."""


@dataclass(frozen=True)
class Arm:
    """One network on some people."""

    name: str
    figures: ComparisonRow
    architecture: str | None = None
    """Architecture, with the precision of an exported student, or the name of a teacher's ONNX
    file; None: the mean pose."""
    cost: Cost | None = None
    """Cost of the architecture; None: not measured."""


@dataclass(frozen=True)
class MeasuredNetwork:
    """An arm whose cost is not measured yet, and the network to measure."""

    arm: Arm
    network: TimedNetwork
    notes: tuple[str, ...] = ()
    """What a user should know of the network's file, a sentence each."""


def with_costs(
    arms: Sequence[Arm], measured: Sequence[MeasuredNetwork]
) -> tuple[list[Arm], tuple[str, ...]]:
    """Add the cost of each arm's architecture, measured once: arms that share it share the figures.

    Returns the arms, and notes that a reader must know.
    """
    networks = {str(found.arm.architecture): found.network for found in measured}
    costs, notes = measure_costs(networks)
    return [replace(arm, cost=costs.get(str(arm.architecture))) for arm in arms], notes


@dataclass(frozen=True)
class ArmDifference:
    """The mean OKS of one arm minus another's, paired by person."""

    one: str
    other: str
    difference: Difference


def mean_pose_arm(train: People, people: People) -> Arm:
    """Measure the mean pose of training people, placed in every box.

    It uses no image: a network that has not left the plateau of the mean pose scores the same.
    """
    predictions = mean_pose_predictions(mean_pose_in_box(train), people)
    return Arm(MEAN_POSE, compare_figures(people, predictions, ScoreRule("one")))


def mean_pose_in_box(train: People) -> NDArray[np.float64]:
    """Average the labelled keypoints of all people, each relative to the person's padded box.

    Returns: (K, 2) float64 as (x, y) from the box's centre, in widths and heights of the padded
    box, so inside it within +-0.5; (0, 0) for a keypoint that is never labelled.
    """
    centre, size = _padded_boxes(train)
    relative = (train.keypoints[..., :2] - centre[:, np.newaxis]) / size[:, np.newaxis]
    is_labelled = train.is_labelled[..., np.newaxis]
    total = np.where(is_labelled, relative, 0.0).sum(axis=0)
    return np.asarray(total / np.maximum(is_labelled.sum(axis=0), 1))


def mean_pose_predictions(mean_pose: NDArray[np.float64], people: People) -> PosePredictions:
    """Place the mean pose in the padded box of every person; all scores are 1.

    mean_pose: (K, 2) float64, as of ``mean_pose_in_box``.

    Raises:
        PeopleError: the people have another number of keypoints.
    """
    num_keypoints = people.skeleton.num_keypoints
    if mean_pose.shape != (num_keypoints, 2):
        raise PeopleError(
            f"the mean pose has {counted(len(mean_pose), 'keypoint')} and the people have "
            f"{num_keypoints}; expected the same; use training people with the keypoints of the "
            "evaluated people"
        )
    centre, size = _padded_boxes(people)
    return PosePredictions(
        image_id=people.image_id[people.image_index],
        annotation_id=people.instance_id,
        keypoints=centre[:, np.newaxis] + mean_pose * size[:, np.newaxis],
        keypoint_scores=np.ones((people.num_instances, num_keypoints)),
        box_score=np.ones(people.num_instances),
        crop_area=size.prod(axis=1),
    )


def teacher_arm(
    teacher: Path, settings: TeacherSettings, people: People, image_folder: Path
) -> MeasuredNetwork:
    """Measure the poses of a heatmap teacher under its settings."""
    opened = open_heatmap_teacher(teacher, people.skeleton, settings, threshold=KEYPOINT_THRESHOLD)
    return _arm(TEACHER, opened, people, image_folder)


def student_arm(
    name: str, student: Path, people: People, image_folder: Path, device: DeviceName = "cpu"
) -> MeasuredNetwork:
    """Measure the poses of a student under the flip test; its own file states their score.

    student: a run folder, or an exported student, which runs on the CPU.
    """
    opened = open_student_at(student, threshold=KEYPOINT_THRESHOLD, device=device)
    return _arm(name, opened, people, image_folder)


def oks_difference(arms: Sequence[Arm], one: str, other: str, seed: int) -> ArmDifference:
    """Return the difference of two arms' mean OKS, with a 95 % interval over people.

    Arms of one name are one network under several seeds; a person's OKS is averaged over them.
    """
    oks_one, oks_other = (
        np.mean([arm.figures.localisation.oks for arm in arms if arm.name == name], axis=0)
        for name in (one, other)
    )
    return ArmDifference(one, other, paired_bootstrap(oks_one, oks_other, seed=seed))


def comparison_json(arms: Sequence[Arm], differences: Sequence[ArmDifference]) -> str:
    """Return all figures of all arms as JSON."""
    return json.dumps(
        {
            "arms": [
                {
                    "name": arm.name,
                    "own_score": arm.figures.own_score.as_dict(),
                    "score_one": arm.figures.score_one.as_dict(),
                    "mean_oks": defined(arm.figures.mean_oks),
                    "mean_pck": defined(arm.figures.mean_pck),
                    "architecture": arm.architecture,
                    "cost": None if arm.cost is None else _cost_json(arm.cost),
                }
                for arm in arms
            ],
            "mean_oks_differences": [asdict(found) for found in differences],
        },
        indent=2,
    )


def _cost_json(cost: Cost) -> dict[str, object]:
    content = asdict(cost)
    for name in ("batch_1", "batch_64"):
        del content[name]
        content[f"ms_{name}"] = getattr(cost, name)._asdict()
    return content


def _arm(name: str, opened: OpenedNetwork, people: People, folder: Path) -> MeasuredNetwork:
    require_same_names(str(opened.path), opened.skeleton.keypoint_names, people)
    predictions = predict_people(opened.estimator, people, folder, padding=opened.padding)
    figures = compare_figures(people, predictions, opened.rule)
    architecture, network = _network_of(opened)
    return MeasuredNetwork(Arm(name, figures, architecture), network, opened.notes)


def _network_of(opened: OpenedNetwork) -> tuple[str, TimedNetwork]:
    """Return the name of an architecture, and the network to time, on the CPU."""
    estimator, size_hw = opened.estimator, opened.estimator.input_size_hw
    if isinstance(estimator, ExportedEstimator):
        found = estimator.student.description
        size = (found.num_parameters, found.num_multiply_adds)
        return str(opened.facts["architecture"]), TimedNetwork(opened.path, size_hw, size)
    if isinstance(estimator, StudentEstimator):
        return estimator.network.architecture, TimedNetwork(estimator.network.cpu(), size_hw)
    if isinstance(estimator, TeacherEstimator) and isinstance(
        estimator.teacher.network, ModuleNetwork
    ):
        module = estimator.teacher.network.module.cpu()
        return module.architecture, TimedNetwork(module, size_hw)
    return opened.path.name, TimedNetwork(opened.path, size_hw)


def _padded_boxes(people: People) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centres and (width, height), each (N, 2) float64, image pixels."""
    boxes = people.bbox_xywh
    return boxes[:, :2] + boxes[:, 2:] / 2, padded_box_size(boxes, _ASPECT_HW, PADDING)
