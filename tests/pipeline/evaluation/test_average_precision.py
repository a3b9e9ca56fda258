"""AP under weights equals pycocotools, on all images and on images that are drawn several times."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.coco.people import IgnoreRegions, People
from pipeline.coco.records import KeypointResult
from pipeline.evaluation.average_precision import match_poses
from pipeline.evaluation.coco_evaluation import evaluate_results

PeopleMaker = Callable[..., People]
NUM_IMAGES = 12


def noisy_results(people: People, noise: float) -> list[KeypointResult]:
    """Return the truth moved by noise that differs between people, with random scores."""
    generator = np.random.default_rng(1)
    results: list[KeypointResult] = []
    for row in range(people.num_instances):
        moved = np.nan_to_num(people.keypoints[row, :, :2].astype(np.float64))
        moved += generator.normal(0, noise * generator.random() * people.area[row] ** 0.5, (5, 2))
        results.append(
            {
                "image_id": int(people.image_id[people.image_index[row]]),
                "category_id": people.category_id,
                "keypoints": np.c_[moved, np.ones(5)].ravel().tolist(),
                "score": float(generator.random()),
            }
        )
    return results


def repeated(
    people: People, results: list[KeypointResult], weights: NDArray[np.int64]
) -> tuple[People, list[KeypointResult]]:
    """Return people and results in which each image stands as often as its weight says."""
    images = np.repeat(np.arange(len(weights)), weights)
    rows, places, copies = [], [], []
    for new, old in enumerate(images.tolist()):
        own = np.flatnonzero(people.image_index == old).tolist()
        rows += own
        places += [new] * len(own)
        copies += [
            {**result, "image_id": 1 + new}
            for result in results
            if result["image_id"] == people.image_id[old]
        ]
    drawn = replace(
        people.select(np.array(rows)),
        image_id=1 + np.arange(len(images)),
        image_name=tuple(f"{i}.jpg" for i in range(len(images))),
        image_size_hw=people.image_size_hw[images],
        image_index=np.array(places),
        instance_id=1 + np.arange(len(rows)),
        ignored=IgnoreRegions.none(),
    )
    return drawn, copies  # type: ignore[return-value]


def test_under_weights_of_one_it_is_the_ap_of_pycocotools(make_people: PeopleMaker) -> None:
    """With crowds, people without a pose, and images without anybody."""
    people = make_people([0, 0, 1, 2, 5, 5], num_images=7, ignored_boxes=[(3, 10, 10, 500, 500)])
    results = noisy_results(people, 0.5)[:-1]
    results.append({**results[0], "image_id": int(people.image_id[3]), "score": 0.9})
    expected = evaluate_results(people, results).AP
    found = match_poses(people, results).average_precision(np.ones((1, 7), np.int64))
    assert expected is not None
    assert 0 < expected < 1
    assert found[0] == pytest.approx(expected, abs=1e-12)


def test_an_image_that_is_drawn_twice_counts_twice(make_people: PeopleMaker) -> None:
    people = make_people([*range(NUM_IMAGES), 0, 1, 2], num_images=NUM_IMAGES)
    results = noisy_results(people, 0.5)
    weights = np.random.default_rng(2).multinomial(NUM_IMAGES, [1 / NUM_IMAGES] * NUM_IMAGES, 3)
    found = match_poses(people, results).average_precision(weights)
    expected = [evaluate_results(*repeated(people, results, w)).AP for w in weights]
    np.testing.assert_allclose(found, np.array(expected, np.float64), atol=1e-12)
    assert len(set(found.tolist())) == 3


def test_without_results_it_is_zero_and_without_people_not_defined(
    make_people: PeopleMaker,
) -> None:
    matched = match_poses(make_people([0, 1], num_images=3), [])
    found = matched.average_precision(np.array([[1, 1, 1], [0, 0, 3]]))
    np.testing.assert_array_equal(found, [0, np.nan])
