"""The score of a predicted pose, and the removal of duplicate poses.

The instance score and OKS-NMS follow HRNet (``lib/nms/nms.py``, ``lib/dataset/coco.py``), whose
figures every later top-down method reports.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import Skeleton
from pipeline.coco.poses import PosePredictions, ScoreRule
from pipeline.coco.skeletons import oks_sigmas
from pipeline.errors import ConfigError

NMS_OKS = 0.9
MAX_POSES = 20


def instance_scores(predictions: PosePredictions, rule: ScoreRule) -> NDArray[np.float64]:
    """Score every pose: the rule applied to its keypoint scores, times its box score.

    Returns: (P,) float64.
    """
    if rule.kind == "one":
        return predictions.box_score.copy()
    scores = predictions.keypoint_scores[:, _scored_columns(rule, predictions)]
    counted = scores > (-np.inf if rule.threshold is None else rule.threshold)
    total = np.where(counted, scores, 0.0).sum(axis=1)
    mean = total / np.maximum(counted.sum(axis=1), 1)
    return np.asarray(mean * predictions.box_score)


def _scored_columns(rule: ScoreRule, predictions: PosePredictions) -> list[int]:
    num_keypoints = predictions.keypoint_scores.shape[1]
    if rule.scored_keypoints is None:
        return list(range(num_keypoints))
    wrong = [k for k in rule.scored_keypoints if not 0 <= k < num_keypoints]
    if wrong or not rule.scored_keypoints:
        raise ConfigError(
            f"scored_keypoints is {list(rule.scored_keypoints)}; expected at least one index from "
            f"0 to {num_keypoints - 1}; leave it out to average all keypoints"
        )
    return list(rule.scored_keypoints)


def keypoint_similarities(
    keypoints: NDArray[np.float64],
    others: NDArray[np.float64],
    area: NDArray[np.float64],
    sigmas: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Compute the terms whose mean is OKS, as pycocotools ``computeOks``: eps is added to the area.

    keypoints, others: (..., K, 2) float64, same frame, broadcast against each other.
    area: (...) float64, that frame's pixels squared. sigmas: (K,) float64.
    Returns: (..., K) float64 in [0, 1].
    """
    # A pose flung out of the picture overflows to an infinite distance, hence to 0: no warning.
    with np.errstate(over="ignore"):
        squared = ((keypoints - others) ** 2).sum(axis=-1)
        error = squared / (2 * sigmas) ** 2 / (area + np.spacing(1))[..., np.newaxis] / 2
    return np.asarray(np.exp(-error))


def without_duplicates(
    predictions: PosePredictions, scores: NDArray[np.float64], skeleton: Skeleton
) -> tuple[PosePredictions, NDArray[np.float64]]:
    """Keep the best of similar poses, and of those the best of every image.

    scores: (P,) float64, the instance scores.

    Raises:
        ConfigError: the skeleton has no OKS fall-offs.
    """
    kept = oks_nms(predictions, scores, oks_sigmas(skeleton))
    return predictions.select(kept), scores[kept]


def oks_nms(
    predictions: PosePredictions,
    scores: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    *,
    threshold: float = NMS_OKS,
    max_poses: int | None = MAX_POSES,
) -> NDArray[np.int64]:
    """Drop poses that repeat a better scored pose of their image, for boxes from a detector.

    scores: (P,) float64. sigmas: (K,) float64. Of equal scores the earlier row is kept.
    max_poses: most poses of an image; None: all.
    Returns: (Q,) int64, the kept rows by ascending image id, then by descending score.
    """
    by_image = np.lexsort((-scores, predictions.image_id))  # stable
    starts = np.flatnonzero(np.diff(predictions.image_id[by_image])) + 1
    kept: list[np.int64] = []
    for rows in np.split(by_image, starts):
        kept += _greedy(predictions, rows, sigmas, threshold)[:max_poses]
    return np.array(kept, dtype=np.int64)


def _greedy(
    predictions: PosePredictions,
    rows: NDArray[np.int64],
    sigmas: NDArray[np.float64],
    threshold: float,
) -> list[np.int64]:
    kept = []
    while rows.size:
        best, rows = rows[0], rows[1:]
        kept.append(best)
        area = (predictions.crop_area[best] + predictions.crop_area[rows]) / 2
        keypoints = predictions.keypoints
        oks = keypoint_similarities(keypoints[rows], keypoints[best], area, sigmas).mean(axis=-1)
        rows = rows[oks <= threshold]
    return kept
