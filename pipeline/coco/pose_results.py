"""Poses in the layout of COCO keypoint results, one dictionary per pose.

Format: https://cocodataset.org/#format-results (keypoint detection), plus ``annotation_id`` where
the pose was made for an annotated box. The third number of a keypoint is its score.
"""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.poses import NO_ANNOTATION, PosePredictions, ResultPoses


class KeypointResult(TypedDict):
    """One predicted pose; keypoints are x, y, score in turn, image pixels."""

    image_id: int
    category_id: int
    keypoints: list[float]
    score: float
    annotation_id: NotRequired[int]


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


def result_poses(results: Sequence[KeypointResult], num_keypoints: int) -> ResultPoses:
    """Turn COCO results into columns, in the same order."""
    triples = np.array([result["keypoints"] for result in results], dtype=np.float64)
    return ResultPoses(
        image_id=np.array([result["image_id"] for result in results], dtype=np.int64),
        annotation_id=np.array(
            [result.get("annotation_id", NO_ANNOTATION) for result in results], dtype=np.int64
        ),
        keypoints=triples.reshape(len(results), num_keypoints, 3)[..., :2],
    )
