"""Networks side by side on the same people: figures, cost, and the difference person by person."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pipeline.coco.people import People
from pipeline.evaluation.localisation import Difference, paired_bootstrap
from pipeline.evaluation.mean_pose import mean_pose_in_box, mean_pose_predictions
from pipeline.evaluation.report import ComparisonRow, compare_figures
from pipeline.models.cost import count_multiply_adds, count_parameters
from pipeline.prediction.estimators import StudentEstimator, TeacherEstimator
from pipeline.prediction.networks import EvaluatedNetwork, open_evaluated_teacher, open_student
from pipeline.prediction.people import predict_people
from pipeline.prediction.pose_scores import ScoreRule
from pipeline.settings import TeacherSettings
from pipeline.teachers.torch_network import TorchNetwork

MEAN_POSE, TEACHER = "mean pose", "teacher"
_TIMED_LOOKS = 40
_THRESHOLD = 0.2


@dataclass(frozen=True)
class Cost:
    """What one look at one person costs."""

    num_parameters: int | None
    """None: the network's file does not say."""
    num_multiply_adds: int | None
    """Convolution, linear and attention products."""
    milliseconds: float
    """Median over looks at one crop on this machine's CPU, without flip test."""


@dataclass(frozen=True)
class Arm:
    """One network on some people."""

    name: str
    figures: ComparisonRow
    cost: Cost | None


@dataclass(frozen=True)
class ArmDifference:
    """The mean OKS of one arm minus another's, paired by person."""

    one: str
    other: str
    difference: Difference


def mean_pose_arm(train: People, people: People) -> Arm:
    """Put the mean pose of training people into every box: what a network must beat."""
    predictions = mean_pose_predictions(mean_pose_in_box(train), people)
    return Arm(MEAN_POSE, compare_figures(people, predictions, ScoreRule(kind="one")), None)


def teacher_arm(
    teacher: Path, settings: TeacherSettings, people: People, image_folder: Path
) -> Arm:
    """Measure a heatmap teacher under its settings."""
    alone = settings.model_copy(update={"batch_size": 1, "flip_test": False})
    return _arm(
        TEACHER,
        open_evaluated_teacher(teacher, people, settings, threshold=_THRESHOLD),
        open_evaluated_teacher(teacher, people, alone, threshold=_THRESHOLD),
        people,
        image_folder,
    )


def student_arm(name: str, weights: Path, people: People, image_folder: Path) -> Arm:
    """Measure a student under the flip test; its checkpoint says how its poses are scored."""
    opened, alone = (
        open_student(weights, people, flip_test=flip_test, threshold=_THRESHOLD, device="cpu")
        for flip_test in (True, False)
    )
    return _arm(name, opened, alone, people, image_folder)


def oks_difference(arms: Sequence[Arm], one: str, other: str, seed: int) -> ArmDifference:
    """Return the difference of two arms' mean OKS, with a 95 % interval over people.

    Arms of one name are one network under several seeds; a person's OKS is averaged over them.
    """
    oks = {name: _oks_of(arms, name) for name in (one, other)}
    return ArmDifference(one, other, paired_bootstrap(oks[one], oks[other], seed=seed))


def comparison_json(arms: Sequence[Arm], differences: Sequence[ArmDifference]) -> str:
    """Return all figures of all arms as JSON."""
    return json.dumps(
        {
            "arms": [
                {
                    "name": arm.name,
                    "own_score": arm.figures.own_score.as_dict(),
                    "score_one": arm.figures.score_one.as_dict(),
                    "mean_oks": arm.figures.mean_oks,
                    "cost": None if arm.cost is None else asdict(arm.cost),
                }
                for arm in arms
            ],
            "mean_oks_differences": [asdict(found) for found in differences],
        },
        indent=2,
    )


def _oks_of(arms: Sequence[Arm], name: str) -> NDArray[np.float64]:
    return np.mean([arm.figures.localisation.oks for arm in arms if arm.name == name], axis=0)


def _arm(
    name: str, opened: EvaluatedNetwork, alone: EvaluatedNetwork, people: People, folder: Path
) -> Arm:
    predictions = predict_people(opened.estimator, people, folder, padding=opened.padding)
    return Arm(name, compare_figures(people, predictions, opened.rule), _cost_of(alone))


def _cost_of(alone: EvaluatedNetwork) -> Cost:
    estimator = alone.estimator
    crop = np.zeros((1, *estimator.input_size_hw, 3), np.uint8)
    seconds = []
    for _ in range(_TIMED_LOOKS):
        began = time.perf_counter()
        estimator.estimate(crop)
        seconds.append(time.perf_counter() - began)
    milliseconds = 1e3 * float(np.median(seconds))
    module: nn.Module
    if isinstance(estimator, StudentEstimator):
        module = estimator.network
    elif isinstance(estimator, TeacherEstimator) and isinstance(
        estimator.teacher.network, TorchNetwork
    ):
        module = estimator.teacher.network.module
    else:
        return Cost(None, None, milliseconds)
    products = count_multiply_adds(module)
    return Cost(count_parameters(module), products.conv_linear + products.attention, milliseconds)
