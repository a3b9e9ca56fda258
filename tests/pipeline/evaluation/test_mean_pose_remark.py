"""What is said of a student beside the mean pose."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.evaluation.localisation import Localisation
from pipeline.evaluation.validation import compare_with_mean_pose

NOTHING = (
    "the student has learned nothing yet; try --init-weights, --pretrained, more steps or a "
    "smaller batch"
)


def measured(oks: NDArray[np.float64], pck: float = 0.5) -> Localisation:
    return Localisation(oks=oks, keypoint_oks=np.array([0.5]), pck=np.array([pck]))


@pytest.mark.parametrize("gain", [-0.05, 0.0, 0.019])
def test_a_student_that_is_no_better_than_the_mean_pose_has_learned_nothing(gain: float) -> None:
    """Even where the gain is the same for everyone, and so certain."""
    said = compare_with_mean_pose(measured(np.full(50, 0.19 + gain)), measured(np.full(50, 0.19)))
    assert said == f"mean OKS {0.19 + gain:.3f}, no better than the mean pose's 0.190: {NOTHING}"


def test_a_clear_gain_is_told_beside_the_mean_pose() -> None:
    said = compare_with_mean_pose(measured(np.full(50, 0.211)), measured(np.full(50, 0.19)))
    assert said == "mean OKS 0.211, that of the mean pose is 0.190"


def test_a_gain_on_few_people_is_not_clear() -> None:
    """Three people, of whom one is better by 0.3; a fourth has no labelled keypoint."""
    one = measured(np.array([0.5, 0.2, 0.2, np.nan]))
    said = compare_with_mean_pose(one, measured(np.array([0.2, 0.2, 0.2, np.nan])))
    assert said.startswith("mean OKS 0.300, not clearly better than the mean pose's 0.200")
    assert "--init-weights" in said


@pytest.mark.parametrize(
    ("pck", "said"),
    [
        (0.51, f"mean PCK@0.2 0.510, no better than the mean pose's 0.500: {NOTHING}"),
        (0.53, "mean PCK@0.2 0.530, that of the mean pose is 0.500"),
    ],
)
def test_without_fall_offs_pck_decides(pck: float, said: str) -> None:
    nothing = np.full(3, np.nan)
    assert compare_with_mean_pose(measured(nothing, pck), measured(nothing, 0.5)) == said
