"""OKS and PCK per person, the mean-pose baseline, and the bootstrap."""

from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.poses import PosePredictions, coco_results
from pipeline.errors import ConfigError, PeopleError
from pipeline.evaluation.coco_evaluation import evaluate_results
from pipeline.evaluation.comparison import mean_pose_in_box, mean_pose_predictions
from pipeline.evaluation.localisation import measure_localisation, paired_bootstrap, pose_of_person

PeopleMaker = Callable[..., People]


def _truth(people: People, offset: float = 0.0) -> PosePredictions:
    n, k = people.is_labelled.shape
    return PosePredictions(
        image_id=people.image_id[people.image_index],
        annotation_id=people.instance_id,
        keypoints=np.nan_to_num(people.keypoints[..., :2].astype(np.float64)) + offset,
        keypoint_scores=np.ones((n, k)),
        box_score=np.ones(n),
        crop_area=people.area,
    )


def _without_annotations(poses: PosePredictions) -> PosePredictions:
    return replace(poses, annotation_id=np.full(poses.num_poses, -1))


def test_oks_of_one_person_is_the_hand_computed_mean(make_people: PeopleMaker) -> None:
    """Labelled keypoints 3 px and 0 px off, area 200, sigmas 0.1 and 0.2; one is unlabelled."""
    people = make_people((0,), num_keypoints=3, sigmas=(0.3, 0.1, 0.2))
    people = replace(people, area=np.array([200.0]))
    poses = _truth(people)
    poses.keypoints[0, 0] = 1e6
    poses.keypoints[0, 1, 0] += 3
    expected = (np.exp(-9 / (2 * 0.2**2 * 200)) + 1) / 2
    assert measure_localisation(people, poses).oks[0] == pytest.approx(expected, rel=1e-6)
    keypoint_oks = measure_localisation(people, poses).keypoint_oks
    np.testing.assert_allclose(keypoint_oks, [np.nan, 2 * expected - 1, 1], rtol=1e-6)


def test_a_person_without_a_pose_counts_zero(make_people: PeopleMaker) -> None:
    people = make_people()
    poses = _truth(people).select(np.array([2, 0]))
    assert measure_localisation(people, poses).oks.tolist() == [1, 0, 1]
    assert measure_localisation(people, poses).mean_oks == pytest.approx(2 / 3)


def test_without_annotation_ids_the_nearest_pose_of_the_image_counts(
    make_people: PeopleMaker,
) -> None:
    people = make_people()
    order = np.array([2, 1, 0])
    poses = _without_annotations(_truth(people).select(order))
    assert pose_of_person(people, poses).tolist() == [2, 1, 0]
    np.testing.assert_array_equal(measure_localisation(people, poses).oks, 1)
    only_first = poses.select(np.array([2]))
    assert pose_of_person(people, only_first).tolist() == [0, 0, -1]


def test_no_poses_give_zero_and_nobody_gives_nan(make_people: PeopleMaker) -> None:
    people = make_people()
    poses = _truth(people)
    nothing = poses.select(np.array([], dtype=np.int64))
    assert measure_localisation(people, nothing).mean_oks == 0
    assert np.isnan(measure_localisation(make_people(()), poses).mean_oks)


def test_a_pose_flung_away_counts_zero_without_a_warning(make_people: PeopleMaker) -> None:
    people = make_people()
    assert measure_localisation(people, _truth(people, offset=1e200)).mean_oks == 0


def test_without_sigmas_pck_is_measured_and_oks_is_not(make_people: PeopleMaker) -> None:
    people, known = make_people(sigmas=()), make_people()
    poses = _truth(people).select(np.array([2, 0]))
    measured = measure_localisation(people, poses)
    np.testing.assert_array_equal(measured.pck, measure_localisation(known, poses).pck)
    assert 0 < measured.mean_pck < 1
    assert np.isnan([measured.mean_oks, *measured.oks, *measured.keypoint_oks]).all()
    nearest = pose_of_person(
        people, _without_annotations(_truth(people).select(np.array([2, 1, 0])))
    )
    assert nearest.tolist() == [2, 1, 0]


def test_sigmas_of_other_keypoints_are_refused(make_people: PeopleMaker) -> None:
    people = make_people(sigmas=(0.1,))
    with pytest.raises(ConfigError, match="1 sigma for 5 keypoints; give sigmas in the config"):
        measure_localisation(people, _truth(people))


def test_pck_counts_labelled_keypoints_within_a_fifth_of_the_longer_side(
    make_people: PeopleMaker,
) -> None:
    people = make_people((0, 1))
    poses = _truth(people)
    longer = people.bbox_xywh[:, 2:].max(axis=1)
    poses.keypoints[0, 1, 0] += 0.19 * longer[0]
    poses.keypoints[1, 1, 0] += 0.21 * longer[1]
    poses.keypoints[0, 0] += 1e4  # unlabelled for person 0
    measured = measure_localisation(people, poses)
    assert measured.pck.tolist() == [1, 0.5, 1, 1, 1]
    assert measured.mean_pck == pytest.approx(0.9)
    assert measure_localisation(people, poses, pck_fraction=0.18).pck[1] == 0


def test_pck_is_nan_for_a_keypoint_that_nobody_has(make_people: PeopleMaker) -> None:
    people = make_people((0,))
    measured = measure_localisation(people, _truth(people))
    assert np.isnan(measured.pck[0])
    assert measured.mean_pck == 1


def test_the_mean_pose_of_one_person_is_that_person(make_people: PeopleMaker) -> None:
    people = make_people((0,))
    mean_pose = mean_pose_in_box(people)
    assert mean_pose[0].tolist() == [0, 0]
    assert np.all(np.abs(mean_pose) <= 0.5 / 1.25)
    placed = mean_pose_predictions(mean_pose, people)
    np.testing.assert_allclose(placed.keypoints[0, 1:], people.keypoints[0, 1:, :2], rtol=1e-6)
    centre = people.bbox_xywh[0, :2] + people.bbox_xywh[0, 2:] / 2
    np.testing.assert_allclose(placed.keypoints[0, 0], centre)


def test_the_mean_pose_averages_in_boxes_padded_to_the_aspect(make_people: PeopleMaker) -> None:
    """A 30 x 40 box padded by 1.25 is 37.5 x 50, a 60 x 40 one 75 x 100."""
    people = make_people((0, 0), num_keypoints=1, sigmas=(0.1,))
    people = replace(
        people,
        bbox_xywh=np.array([[0.0, 0, 30, 40], [100, 100, 60, 40]]),
        keypoints=np.array([[[15 + 3.75, 20, 2]], [[130, 120 + 10, 1]]], dtype=np.float32),
    )
    np.testing.assert_allclose(mean_pose_in_box(people), [[0.05, 0.05]])
    assert mean_pose_predictions(np.zeros((1, 2)), people).crop_area.tolist() == [1875, 7500]


def test_a_mean_pose_of_other_keypoints_is_refused(make_people: PeopleMaker) -> None:
    with pytest.raises(PeopleError, match="has 3 keypoints and the people have 5"):
        mean_pose_predictions(np.zeros((3, 2)), make_people())


def test_the_mean_pose_can_be_evaluated(make_people: PeopleMaker) -> None:
    people = make_people()
    poses = mean_pose_predictions(mean_pose_in_box(people), people)
    figures = evaluate_results(people, coco_results(poses, poses.box_score, people.category_id))
    assert figures.AP is not None
    assert 0 <= figures.AP < 1


def test_the_bootstrap_interval_covers_the_true_difference_about_95_times_of_100() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for seed in range(100):
        shared = generator.random(200)
        oks_a = shared + generator.normal(0.02, 0.1, 200)
        difference = paired_bootstrap(oks_a, shared, num_samples=400, seed=seed)
        covered += difference.low <= 0.02 <= difference.high
    assert 88 <= covered <= 100


def test_the_bootstrap_interval_of_many_people_is_the_normal_one_of_95_percent() -> None:
    """The limits tend to mean +- 1.96 standard errors; 10,000 samples are within 4 % of it."""
    oks = np.random.default_rng(5).normal(0.02, 0.1, 1000)
    found = paired_bootstrap(oks, np.zeros(1000), seed=0)
    error = oks.std() / np.sqrt(1000)
    expected = NormalDist(oks.mean(), error)
    limits = [expected.inv_cdf(0.025), expected.inv_cdf(0.975)]
    assert [found.low, found.high] == pytest.approx(limits, abs=0.08 * error)


def test_the_bootstrap_pairs_people_and_repeats_itself() -> None:
    oks = np.random.default_rng(0).random(50)
    shifted = paired_bootstrap(oks + 0.1, oks, num_samples=1000, seed=1)
    assert (shifted.mean, shifted.low, shifted.high) == pytest.approx((0.1, 0.1, 0.1))
    first, second = (paired_bootstrap(oks, oks[::-1], 100, seed=2) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("other", [np.zeros(3), np.array([0.0, np.nan]), np.zeros((2, 1))])
def test_the_bootstrap_refuses_other_people_and_undefined_values(
    other: NDArray[np.float64],
) -> None:
    with pytest.raises(ValueError, match="expected"):
        paired_bootstrap(np.zeros(2), other, seed=0)
