"""Laws of tracking: a person keeps the id through motion, crossing and gaps."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.coco.skeletons import COCO_SIGMAS
from pipeline.prediction.image_poses import ImagePoses
from pipeline.prediction.tracking import FOLLOW_MARGIN, MAX_MISSING, MIN_IOU, Tracker, box_ious

SIGMAS = np.array(COCO_SIGMAS)


def figure(seed: int, x: float = 0, y: float = 0) -> NDArray[np.float64]:
    """A pose in a box of 80 x 200 pixels around (x, y), by a seed."""
    pose = np.random.default_rng(seed).uniform(-0.5, 0.5, (17, 2)) * (80, 200)
    return np.asarray(pose + np.array([x, y]))


def poses_of(*people: NDArray[np.float64]) -> ImagePoses:
    """The poses (17, 2) of one frame, each in the box around its joints."""
    keypoints = np.stack(people) if people else np.zeros((0, 17, 2))
    low, high = keypoints.min(axis=1), keypoints.max(axis=1)
    scores = np.ones(len(people))
    return ImagePoses(
        np.concatenate([low, high - low], axis=1), scores, keypoints, np.ones((len(people), 17)),
        scores, None,
    )  # fmt: skip


def ids(tracker: Tracker, *people: NDArray[np.float64]) -> list[int]:
    return tracker.update(poses_of(*people)).tolist()


def test_identity_is_kept_while_people_walk_whatever_their_order() -> None:
    tracker, random = Tracker(SIGMAS), np.random.default_rng(0)
    for frame in range(30):
        people = [figure(seed, 100 + 300 * seed + 6 * frame, 200) for seed in range(3)]
        people = [each + random.normal(0, 1, each.shape) for each in people]
        order = random.permutation(3)
        found = ids(tracker, *(people[row] for row in order))
        if frame == 0:
            id_of = dict(zip(order.tolist(), found, strict=True))
        assert found == [id_of[row] for row in order.tolist()]
    assert sorted(id_of.values()) == [1, 2, 3]


@pytest.mark.parametrize("step", [3.0, 8.0, 15.0])
@pytest.mark.parametrize("second", [0, 1], ids=["alike", "different"])
def test_two_people_who_cross_keep_their_ids(step: float, second: int) -> None:
    """In the middle their boxes are the same; poses and velocities tell them apart."""
    tracker, num_frames = Tracker(SIGMAS), 40
    for frame in range(num_frames):
        # Half a step past each other in the middle, where each stands where the other stood.
        x = (frame - num_frames / 2 + 0.25) * step
        left, right = figure(0, x), figure(second, -x)
        found = ids(tracker, left, right) if frame % 2 else ids(tracker, right, left)[::-1]
        if frame == 0:
            first = found
        assert found == first


def test_poses_decide_where_boxes_would_exchange_two_people() -> None:
    """One of them stands still; boxes overlap more with the wrong one, and OKS with the right."""
    tracker = Tracker(SIGMAS)
    first, second = figure(0), figure(1)
    box = np.array([[-40.0, -100, 80, 200]])
    before = poses_of(first, second)
    wrong = ImagePoses(
        np.concatenate([box, box + np.array([30, 0, 0, 0])]), *list(vars(before).values())[1:]
    )
    after = poses_of(second, first)
    exchanged = ImagePoses(wrong.bbox_xywh, *list(vars(after).values())[1:])
    assert tracker.update(wrong).tolist() == [1, 2]
    assert tracker.update(exchanged).tolist() == [2, 1]
    alone = Tracker(None)
    alone.update(wrong)
    assert alone.update(exchanged).tolist() == [1, 2]


def test_a_leap_that_oks_does_not_join_is_joined_by_the_boxes() -> None:
    tracker, other = Tracker(SIGMAS), Tracker(SIGMAS)
    assert ids(tracker, figure(0)) == [1]
    leap = figure(5)  # another pose in nearly the same box
    assert box_ious(poses_of(figure(0)).bbox_xywh, poses_of(leap).bbox_xywh)[0, 0] > MIN_IOU
    assert ids(tracker, leap) == [1]
    ids(other, figure(0))
    assert ids(other, figure(5, 500)) == [2]


def test_a_gap_is_bridged_by_velocity_and_ends_a_track_when_it_is_long() -> None:
    for gap, expected in ((MAX_MISSING, 1), (MAX_MISSING + 1, 2)):
        tracker = Tracker(SIGMAS)
        for frame in range(10):
            assert ids(tracker, figure(0, 20 * frame)) == [1]
        for _ in range(gap):
            assert ids(tracker) == []
        assert ids(tracker, figure(0, 20 * (9 + gap + 1))) == [expected]


def test_an_id_is_never_given_twice() -> None:
    tracker = Tracker(SIGMAS)
    found = [ids(tracker, figure(0, 1000 * frame))[0] for frame in range(5)]
    assert found == [1, 2, 3, 4, 5]


def test_only_the_given_keypoints_are_compared() -> None:
    """Those that a student never learned jump about."""
    tracker = Tracker(SIGMAS, columns=tuple(range(5, 17)))
    for frame in range(10):
        person = figure(0, 3 * frame)
        person[:5] = np.random.default_rng(frame).uniform(-2000, 2000, (5, 2))
        assert ids(tracker, person) == [1]


def test_boxes_follow_the_poses_with_a_margin_and_their_motion() -> None:
    tracker = Tracker(SIGMAS)
    for frame in range(20):
        ids(tracker, figure(0, 200 + 4 * frame, 200))
    expected = figure(0, 200 + 4 * 20, 200)
    low, high = expected.min(axis=0), expected.max(axis=0)
    followed = tracker.followed((400, 600))
    margin = FOLLOW_MARGIN * (high - low)
    assert pytest.approx(0.15) == FOLLOW_MARGIN
    np.testing.assert_allclose(
        followed.bbox_xywh, [[*(low - margin), *(high - low + 2 * margin)]], atol=0.01
    )
    assert followed.scores.tolist() == [1.0]
    inside = tracker.followed((250, 280)).bbox_xywh[0]
    assert (inside[:2] >= 0).all()
    np.testing.assert_allclose(inside[:2] + inside[2:], [280, 250])
    assert len(tracker.followed((400, 150)).scores) == 0  # the person has left the picture
    ids(tracker)
    assert len(tracker.followed((400, 600)).scores) == 0  # nor is a person who was not found
