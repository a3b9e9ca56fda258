"""People on photographs: drawn in their size, without what was never learned, labels inside."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import Skeleton
from pipeline.coco.poses import ScoreRule
from pipeline.pictures.on_photographs import draw_people
from pipeline.pictures.poses import CENTRE_COLOUR
from pipeline.prediction.image_poses import ImagePoses

SKELETON = Skeleton(("a", "b", "c"), ((0, 1),), (0, 1, 2), (0.05, 0.05, 0.05))
GREY = np.full((400, 600, 3), 100, np.uint8)
POSES = ImagePoses(
    bbox_xywh=np.array([[50.0, 50, 100, 300], [400.0, 100, 30, 60]]),
    box_scores=np.array([1.0, 1.0]),
    keypoints=np.array(
        [[[100.0, 100], [100, 300], [80, 200]], [[410.0, 110], [420, 150], [412, 130]]]
    ),
    keypoint_scores=np.array([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1]]),
    scores=np.array([0.85, 0.3]),
    sigmas=None,
)


def has_dot(picture: NDArray[np.uint8], point: NDArray[np.float64]) -> bool:
    x, y = point.astype(int)
    return picture[y, x].tolist() == list(CENTRE_COLOUR)


def drawn(**settings: Any) -> NDArray[np.uint8]:
    rule = settings.pop("rule", ScoreRule())
    return draw_people(GREY, POSES, SKELETON, rule, **settings)


def test_every_pose_is_drawn_and_the_photograph_is_not_changed() -> None:
    before = GREY.copy()
    picture = drawn()
    assert all(has_dot(picture, point) for point in POSES.keypoints.reshape(-1, 2))
    np.testing.assert_array_equal(before, GREY)


def test_keypoints_that_were_never_learned_are_not_drawn() -> None:
    picture = drawn(rule=ScoreRule(scored_keypoints=(0, 1)), with_boxes=False)
    assert [has_dot(picture, point) for point in POSES.keypoints[0]] == [True, True, False]
    # Without any learned score nothing tells which of them were learned.
    assert has_dot(drawn(rule=ScoreRule("one")), POSES.keypoints[0, 2])


def test_keypoints_of_a_low_score_are_not_drawn() -> None:
    picture = drawn(min_keypoint_score=0.85)
    assert [has_dot(picture, point) for point in POSES.keypoints[0]] == [True, False, False]


def test_a_small_person_is_drawn_thinly() -> None:
    changed = (drawn(with_boxes=False, rule=ScoreRule("one")) != GREY).any(axis=-1)
    assert changed[108, 409:412].all()
    large, small = changed[60:140, 60:140].sum(), changed[105:115, 400:418].sum()
    assert large > 1.5 * small


def test_a_label_stays_inside_the_picture_and_names_the_track() -> None:
    corner = replace(POSES, bbox_xywh=np.array([[-30.0, -30, 100, 300], [590.0, 390, 30, 60]]))
    picture = draw_people(GREY, corner, SKELETON, ScoreRule(), track_ids=np.array([1, 23]))
    without = draw_people(GREY, corner, SKELETON, ScoreRule("one"))
    assert (picture[:14, :30] != without[:14, :30]).any()
    assert (picture[370:, 540:] != without[370:, 540:]).any()
