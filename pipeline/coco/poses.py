"""Poses as columns, the rule of their score, and their layout as COCO keypoint results.

Format: https://cocodataset.org/#format-results (keypoint detection), plus ``annotation_id`` where
the pose was predicted in an annotated box. The third number of a keypoint is its score.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.records import KeypointResult
from pipeline.errors import PeopleError

NO_ANNOTATION = -1
ScoreKind = Literal["learned", "one"]


@dataclass(frozen=True)
class ScoreRule:
    """The rule by which the scores of its keypoints make the score that ranks a pose."""

    kind: ScoreKind = "learned"
    """``learned``: their mean; ``one``: 1, where no keypoint's score was ever trained."""
    threshold: float | None = None
    """Only keypoint scores above it are averaged (0 if none is); None averages all."""
    scored_keypoints: tuple[int, ...] | None = None
    """Only these keypoints' scores are averaged, e.g. those a training set labels; None: all."""


@dataclass(frozen=True)
class Poses:
    """One row per pose (``P`` rows), in any order."""

    image_id: NDArray[np.int64]  # (P,)
    annotation_id: NDArray[np.int64]  # (P,), -1: unknown, as the box came from a detector
    keypoints: NDArray[np.float64]  # (P, K, 2) as (x, y), image pixels


@dataclass(frozen=True)
class PosePredictions(Poses):
    """Poses with all that their score is made of.

    Raises:
        PeopleError: a value is not finite.
    """

    keypoint_scores: NDArray[np.float64]  # (P, K)
    box_score: NDArray[np.float64]  # (P,), 1 for annotated boxes
    crop_area: NDArray[np.float64]  # (P,), area of the padded crop in image pixels squared

    def __post_init__(self) -> None:
        num_poses, num_keypoints = self.keypoint_scores.shape
        expected = (num_poses, num_keypoints, 2)
        if self.keypoints.shape != expected:
            raise ValueError(f"keypoints have shape {self.keypoints.shape}, expected {expected}")
        for column in (self.image_id, self.annotation_id, self.box_score, self.crop_area):
            if column.shape != (num_poses,):
                raise ValueError(f"a column has shape {column.shape}, expected {(num_poses,)}")
        # pycocotools takes a NaN similarity for a match, and NMS for a duplicate.
        for name in ("keypoints", "keypoint_scores", "box_score", "crop_area"):
            is_finite = np.isfinite(getattr(self, name))
            bad = np.flatnonzero(~is_finite.all(axis=tuple(range(1, is_finite.ndim))))
            if bad.size:
                raise PeopleError(
                    f"predicted pose {bad[0]} (image id {self.image_id[bad[0]]}) holds a value in "
                    f"{name} that is not finite; expected finite numbers; check the network that "
                    "made it, or leave the pose out"
                )

    @property
    def num_poses(self) -> int:
        return len(self.image_id)

    def select(self, rows: NDArray[np.int64]) -> Self:
        """Return these rows in this order."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def coco_results(
    predictions: PosePredictions, scores: NDArray[np.float64], category_id: int
) -> list[KeypointResult]:
    """Lay predictions out as COCO results, in the same order.

    scores: (P,) float64, the instance scores.
    """
    triples = np.concatenate([predictions.keypoints, predictions.keypoint_scores[..., None]], -1)
    results = []
    for row in range(predictions.num_poses):
        result = KeypointResult(
            image_id=int(predictions.image_id[row]),
            category_id=category_id,
            keypoints=triples[row].ravel().tolist(),
            score=float(scores[row]),
        )
        if predictions.annotation_id[row] != NO_ANNOTATION:
            result["annotation_id"] = int(predictions.annotation_id[row])
        results.append(result)
    return results


def results_with_score_one(results: Sequence[KeypointResult]) -> list[KeypointResult]:
    """Give every pose the score 1, in the order (image id, annotation id).

    With equal scores COCO ranks by order, so a fixed order makes AP independent of batching.
    Poses without an annotation id keep their order within the image.
    """
    ordered = sorted(results, key=lambda r: (r["image_id"], r.get("annotation_id", NO_ANNOTATION)))
    return [KeypointResult(**{**result, "score": 1.0}) for result in ordered]


def result_poses(results: Sequence[KeypointResult], num_keypoints: int) -> Poses:
    """Turn COCO results into columns, in the same order."""
    triples = np.array([result["keypoints"] for result in results], dtype=np.float64)
    return Poses(
        image_id=np.array([result["image_id"] for result in results], dtype=np.int64),
        annotation_id=np.array(
            [result.get("annotation_id", NO_ANNOTATION) for result in results], dtype=np.int64
        ),
        keypoints=triples.reshape(len(results), num_keypoints, 3)[..., :2],
    )
