"""AP of drawn images, for intervals: pycocotools finds the matches once, and weights do the rest.

An image that is drawn twice counts twice with all its people and poses. Under weights of 1 the AP
is that of ``evaluate_results``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.records import KeypointResult
from pipeline.evaluation.coco_evaluation import evaluated_images

RECALLS = np.linspace(0.0, 1.0, 101)
"""Recalls at which precision is averaged, as in pycocotools."""


@dataclass(frozen=True)
class MatchedPoses:
    """Which poses match a person at each of COCO's ten OKS thresholds, by falling score."""

    image: NDArray[np.int64]  # (D,), index of the image of the people
    is_match: NDArray[np.bool_]  # (10, D)
    is_ignored: NDArray[np.bool_]  # (10, D), matches an ignore region: neither right nor wrong
    num_people: NDArray[np.int64]  # (I,), people to find in each image

    def average_precision(self, weights: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return AP under weights of the images.

        weights: (B, I), how often each image was drawn.
        Returns: (B,) in [0, 1]; NaN where there is nobody to find.
        """
        parts = np.array_split(weights, max(1, weights.shape[0] * len(self.image) // 2**22))
        return np.concatenate([self._average_precision(part) for part in parts])

    def _average_precision(self, weights: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        of_pose = weights[:, self.image].astype(np.float64)
        to_find = (weights @ self.num_people).astype(np.float64)
        to_find[to_find == 0] = np.nan
        total = np.zeros(len(weights))
        for match, ignored in zip(self.is_match, self.is_ignored, strict=True):
            right = np.cumsum(of_pose * (match & ~ignored), axis=1)
            wrong = np.cumsum(of_pose * (~match & ~ignored), axis=1)
            precision = right / (right + wrong + np.spacing(1))
            # Precision at a recall is the best at that recall or a higher one.
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            total += _mean_at_recalls(right / to_find[:, None], envelope)
        return np.where(np.isnan(to_find), np.nan, total / len(self.is_match))


def match_poses(people: People, results: Sequence[KeypointResult]) -> MatchedPoses:
    """Find which results match a person, as COCO's evaluation does.

    Raises:
        PeopleError: a result contradicts the people.
        ConfigError: the skeleton has no OKS fall-offs.
    """
    row_of_image = {int(image_id): row for row, image_id in enumerate(people.image_id)}
    num_people = np.zeros(len(people.image_id), np.int64)
    images, scores, matches, ignored = [], [], [], []
    for found in evaluated_images(people, results):
        row = row_of_image[found["image_id"]]
        num_people[row] = np.count_nonzero(np.asarray(found["gtIgnore"]) == 0)
        images += [row] * len(found["dtScores"])
        scores += found["dtScores"]
        matches.append(found["dtMatches"] > 0)
        ignored.append(found["dtIgnore"].astype(bool))
    order = np.argsort(-np.array(scores, np.float64), kind="mergesort")  # as pycocotools
    return MatchedPoses(
        image=np.array(images, np.int64)[order],
        is_match=np.concatenate([np.zeros((10, 0), bool), *matches], axis=1)[:, order],
        is_ignored=np.concatenate([np.zeros((10, 0), bool), *ignored], axis=1)[:, order],
        num_people=num_people,
    )


def _mean_at_recalls(
    recall: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Average precision over the recalls, 0 beyond the last; each (B, D)."""
    padded = np.concatenate([precision, np.zeros((len(precision), 1))], axis=1)
    return np.array(
        [
            row[np.searchsorted(reached, RECALLS, side="left")].mean()
            for reached, row in zip(recall, padded, strict=True)
        ]
    )
