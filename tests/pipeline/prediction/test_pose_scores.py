"""Instance scores and OKS-NMS."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.coco.poses import PosePredictions, ScoreRule
from pipeline.errors import ConfigError, PeopleError
from pipeline.prediction.pose_scores import instance_scores, keypoint_similarities, oks_nms

SIGMAS = np.array([0.05, 0.1, 0.08])


def _predictions(
    keypoints: NDArray[np.float64],
    keypoint_scores: list[list[float]] | None = None,
    *,
    image_id: list[int] | None = None,
    box_score: list[float] | None = None,
) -> PosePredictions:
    p, k, _ = keypoints.shape
    return PosePredictions(
        image_id=np.array(image_id or [1] * p, dtype=np.int64),
        annotation_id=np.full(p, -1),
        keypoints=keypoints,
        keypoint_scores=np.array(keypoint_scores or np.ones((p, k)), dtype=np.float64),
        box_score=np.array(box_score or [1.0] * p),
        crop_area=np.full(p, 10_000.0),
    )


SCORED = _predictions(
    np.zeros((2, 3, 2)), [[0.2, 0.4, 0.9], [0.1, 0.2, -0.5]], box_score=[0.5, 1.0]
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ScoreRule(), [0.5 * 0.5, -0.2 / 3]),
        (ScoreRule(threshold=0.2), [0.5 * 0.65, 0.0]),
        (ScoreRule(threshold=0.0), [0.5 * 0.5, 0.15]),
        (ScoreRule(threshold=None), [0.5 * 0.5, -0.2 / 3]),
        (ScoreRule(kind="one"), [0.5, 1.0]),
        (ScoreRule(threshold=None, scored_keypoints=(0, 2)), [0.5 * 0.55, -0.2]),
    ],
)
def test_score_is_box_score_times_mean_of_keypoint_scores_above_threshold(
    rule: ScoreRule, expected: list[float]
) -> None:
    np.testing.assert_allclose(instance_scores(SCORED, rule), expected, atol=1e-15)


@pytest.mark.parametrize("scored", [(), (3,), (-1,)])
def test_scored_keypoints_that_do_not_exist_are_refused(scored: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="expected at least one index from 0 to 2"):
        instance_scores(SCORED, ScoreRule(scored_keypoints=scored))


def test_a_pose_that_is_not_finite_is_refused_with_its_image() -> None:
    keypoints = np.zeros((2, 3, 2))
    keypoints[1, 2, 0] = np.nan
    with pytest.raises(PeopleError, match=r"pose 1 \(image id 8\) holds a value in keypoints"):
        _predictions(keypoints, image_id=[5, 8])


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(1,\)"):
        _predictions(np.zeros((1, 3, 2)), box_score=[1.0, 1.0])


def test_keypoint_similarity_is_the_coco_formula() -> None:
    """d = 5 px, area 400, sigma 0.1: exp(-25 / (0.2^2 * 400 * 2)) = exp(-25 / 32)."""
    similarity = keypoint_similarities(
        np.array([[[3.0, 4.0]]]), np.zeros((1, 1, 2)), np.array([400.0]), np.array([0.1])
    )
    assert similarity[0, 0] == pytest.approx(np.exp(-25 / 32), rel=1e-12)


def test_nms_keeps_the_best_of_near_duplicates_and_every_other_person() -> None:
    pose = np.array([[10.0, 10.0], [40.0, 60.0], [20.0, 90.0]])
    predictions = _predictions(
        np.stack([pose, pose + 0.5, pose + 200, pose]), image_id=[2, 2, 2, 1]
    )
    kept = oks_nms(predictions, np.array([0.5, 0.9, 0.1, 0.3]), SIGMAS)
    assert kept.tolist() == [3, 1, 2]
    assert predictions.select(kept).image_id.tolist() == [1, 2, 2]


def test_nms_keeps_the_earlier_of_equal_scores() -> None:
    predictions = _predictions(np.zeros((3, 3, 2)))
    assert oks_nms(predictions, np.ones(3), SIGMAS).tolist() == [0]


def test_nms_keeps_poses_exactly_as_similar_as_the_threshold() -> None:
    predictions = _predictions(np.zeros((2, 3, 2)))
    assert oks_nms(predictions, np.ones(2), SIGMAS, threshold=1.0).tolist() == [0, 1]


def test_nms_keeps_at_most_twenty_poses_of_an_image() -> None:
    keypoints = np.zeros((50, 3, 2)) + 1000.0 * np.arange(50)[:, None, None]
    predictions = _predictions(keypoints, image_id=[1] * 25 + [2] * 25)
    kept = oks_nms(predictions, np.arange(50.0), SIGMAS)
    assert kept.tolist() == [*range(24, 4, -1), *range(49, 29, -1)]


def test_nms_of_nothing_is_nothing() -> None:
    assert oks_nms(_predictions(np.zeros((0, 3, 2))), np.zeros(0), SIGMAS).shape == (0,)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_poses=st.integers(1, 12))
def test_nms_keeps_the_same_poses_whatever_their_order(seed: int, num_poses: int) -> None:
    generator = np.random.default_rng(seed)
    keypoints = 3 * generator.integers(0, 4, (num_poses, 3, 2)).astype(np.float64)
    predictions = _predictions(keypoints, image_id=generator.integers(1, 3, num_poses).tolist())
    scores = generator.permutation(num_poses).astype(np.float64)
    order = generator.permutation(num_poses)
    kept = oks_nms(predictions, scores, SIGMAS)
    shuffled = oks_nms(predictions.select(order), scores[order], SIGMAS)
    assert order[shuffled].tolist() == kept.tolist()
