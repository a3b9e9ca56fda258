"""Networks side by side on the same people: figures, cost, and the difference person by person."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.evaluation.evaluated_networks import (
    EvaluatedNetwork,
    open_evaluated_teacher,
    open_student,
)
from pipeline.evaluation.localisation import Difference, paired_bootstrap
from pipeline.evaluation.mean_pose import mean_pose_in_box, mean_pose_predictions
from pipeline.evaluation.pose_scores import PosePredictions, ScoreRule
from pipeline.evaluation.report import ComparisonRow, compare_figures
from pipeline.models.cost import count_multiply_adds, count_parameters
from pipeline.models.pose_networks import RegressionStudent, TokenPoseTeacher
from pipeline.prediction import StudentEstimator, TeacherEstimator, predict_people
from pipeline.teachers import TeacherSettings
from pipeline.teachers.torch_network import TorchNetwork

_TIMED_PASSES = 40
THRESHOLD = 0.2


@dataclass(frozen=True)
class Cost:
    """What one look at one person costs."""

    num_parameters: int
    num_multiply_adds: int
    """Convolution, linear and attention products."""
    milliseconds: float
    """Median time of one crop, without flip test, on the CPU threads of this process."""


@dataclass(frozen=True)
class Arm:
    """One row of a comparison."""

    name: str
    predictions: PosePredictions
    figures: ComparisonRow
    cost: Cost | None


def mean_pose_arm(train: People, people: People) -> Arm:
    """Put the mean pose of training people into every box: what a network must beat."""
    predictions = mean_pose_predictions(mean_pose_in_box(train), people)
    rule = ScoreRule(kind="one")
    return Arm("mean pose", predictions, compare_figures(people, predictions, rule), None)


def teacher_arm(name: str, weights: Path, people: People, image_folder: Path) -> Arm:
    """Measure a heatmap teacher of ours under the flip test."""
    opened = open_evaluated_teacher(
        weights, people, TeacherSettings(flip_test=True), threshold=THRESHOLD
    )
    alone = open_evaluated_teacher(
        weights, people, TeacherSettings(batch_size=1), threshold=THRESHOLD
    )
    return _arm(name, opened, alone, people, image_folder)


def student_arm(name: str, weights: Path, people: People, image_folder: Path) -> Arm:
    """Measure a student under the flip test; its checkpoint says how its poses are scored."""
    opened, alone = (
        open_student(weights, people, flip_test=flip_test, threshold=THRESHOLD, device="cpu")
        for flip_test in (True, False)
    )
    return _arm(name, opened, alone, people, image_folder)


def oks_difference(one: list[Arm], other: list[Arm], seed: int) -> Difference:
    """Return the mean OKS of some arms minus that of others, with a 95 % interval over people.

    one, other: the same networks under several seeds; a person's OKS is averaged over them.
    """
    return paired_bootstrap(_mean_oks(one), _mean_oks(other), seed=seed)


def _mean_oks(arms: list[Arm]) -> NDArray[np.float64]:
    return np.mean([arm.figures.localisation.oks for arm in arms], axis=0)


def _arm(
    name: str, opened: EvaluatedNetwork, alone: EvaluatedNetwork, people: People, folder: Path
) -> Arm:
    predictions = predict_people(opened.estimator, people, folder, padding=opened.padding)
    return Arm(
        name, predictions, compare_figures(people, predictions, opened.rule), _cost_of(alone)
    )


def _cost_of(alone: EvaluatedNetwork) -> Cost:
    estimator = alone.estimator
    module = _module_of(estimator)
    crop = np.zeros((1, *estimator.input_size_hw, 3), np.uint8)
    seconds = []
    for _ in range(_TIMED_PASSES):
        began = time.perf_counter()
        estimator.estimate(crop)
        seconds.append(time.perf_counter() - began)
    products = count_multiply_adds(module)
    return Cost(
        count_parameters(module),
        products.conv_linear + products.attention,
        1e3 * float(np.median(seconds)),
    )


def _module_of(estimator: object) -> RegressionStudent | TokenPoseTeacher:
    if isinstance(estimator, StudentEstimator):
        return estimator.network
    assert isinstance(estimator, TeacherEstimator)
    network = estimator.teacher.network
    assert isinstance(network, TorchNetwork)
    return network.module
