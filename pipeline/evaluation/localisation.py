"""Distance of predicted keypoints from the truth, person by person, whatever the ranking.

AP mixes localisation with the ranking of poses by their score, which alone is worth ten points;
OKS and PCK of the pose made for each person do not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.poses import NO_ANNOTATION, Poses
from pipeline.coco.skeletons import oks_sigmas
from pipeline.prediction.pose_scores import keypoint_similarities


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Localisation:
    """OKS and PCK per person and per keypoint; a person without a pose counts 0.

    All OKS are NaN where the skeleton has no fall-offs.
    """

    oks: NDArray[np.float64]  # (N,), NaN: no labelled keypoint
    keypoint_oks: NDArray[np.float64]  # (K,), mean OKS term where labelled, NaN: never labelled
    pck: NDArray[np.float64]  # (K,), NaN: never labelled

    @property
    def mean_oks(self) -> float:
        """The mean over people with labelled keypoints; NaN if there are none."""
        return mean_defined(self.oks)

    @property
    def mean_pck(self) -> float:
        """The mean over keypoint kinds, so that a rarely labelled kind counts as much."""
        return mean_defined(self.pck)


def measure_localisation(people: People, poses: Poses, pck_fraction: float = 0.2) -> Localisation:
    """Measure the pose of every person, as ``pose_of_person`` finds it.

    pck_fraction: PCK counts keypoints within this fraction of the box's longer side.

    Raises:
        ConfigError: the skeleton's OKS fall-offs are not one per keypoint.
    """
    rows = pose_of_person(people, poses)
    has_pose = rows >= 0
    found, truth = poses.keypoints[rows[has_pose]], people.keypoints[has_pose, :, :2]
    if people.skeleton.sigmas:
        similarities = np.zeros(people.is_labelled.shape)
        similarities[has_pose] = keypoint_similarities(
            found, truth.astype(np.float64), people.area[has_pose], oks_sigmas(people.skeleton)
        )
    else:
        similarities = np.full(people.is_labelled.shape, np.nan)
    is_near = np.zeros(people.is_labelled.shape)
    with np.errstate(over="ignore"):
        distance = np.hypot(*np.moveaxis(found - truth, -1, 0))
    longer_side = people.bbox_xywh[has_pose, 2:].max(axis=1, keepdims=True)
    is_near[has_pose] = distance <= pck_fraction * longer_side
    return Localisation(
        oks=_mean_where_labelled(similarities, people.is_labelled, axis=1),
        keypoint_oks=_mean_where_labelled(similarities, people.is_labelled, axis=0),
        pck=_mean_where_labelled(is_near, people.is_labelled, axis=0),
    )


def pose_of_person(people: People, poses: Poses) -> NDArray[np.int64]:
    """Find the pose of each person: the one with its annotation id, where poses have ids.

    Otherwise it is the pose of the image with the best OKS, which may be the same for two people;
    without OKS fall-offs, the one with the smallest mean distance of labelled keypoints.
    Returns: (N,) int64, rows of ``poses``; -1: none.
    """
    if np.all(poses.annotation_id == NO_ANNOTATION):
        return _nearest_poses(people, poses)
    row_of_annotation = {int(a): row for row, a in enumerate(poses.annotation_id)}
    row_of_annotation.pop(NO_ANNOTATION, None)
    return np.array([row_of_annotation.get(int(i), -1) for i in people.instance_id], dtype=np.int64)


def paired_bootstrap(
    oks_a: NDArray[np.float64],
    oks_b: NDArray[np.float64],
    num_samples: int = 10_000,
    *,
    seed: int,
) -> Difference:
    """Estimate the mean of a minus b over people with its 95 % percentile bootstrap interval.

    oks_a, oks_b: (N,) float64, the same people in the same order, N > 0, no NaN.
    """
    if oks_a.shape != oks_b.shape or oks_a.ndim != 1 or not oks_a.size:
        raise ValueError(
            f"expected two columns of the same people, got {oks_a.shape}, {oks_b.shape}"
        )
    difference = oks_a - oks_b
    if not np.isfinite(difference).all():
        raise ValueError("expected finite values; leave out people whose OKS is not defined")
    generator = np.random.default_rng(seed)
    num_people = len(difference)
    batch = max(1, 2**22 // num_people)  # 32 MiB of indices at a time
    means = [
        difference[
            generator.integers(num_people, size=(min(batch, num_samples - s), num_people))
        ].mean(axis=1)
        for s in range(0, num_samples, batch)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Difference(mean=float(difference.mean()), low=float(low), high=float(high))


def _nearest_poses(people: People, poses: Poses) -> NDArray[np.int64]:
    sigmas = oks_sigmas(people.skeleton) if people.skeleton.sigmas else None
    by_image = np.argsort(poses.image_id, kind="stable")
    image_ids = people.image_id[people.image_index]
    first = np.searchsorted(poses.image_id[by_image], image_ids, side="left")
    last = np.searchsorted(poses.image_id[by_image], image_ids, side="right")
    nearest = np.full(people.num_instances, -1, dtype=np.int64)
    for person in np.flatnonzero((last > first) & people.is_labelled.any(axis=1)):
        candidates = by_image[first[person] : last[person]]
        labelled = people.is_labelled[person]
        truth = people.keypoints[person, labelled, :2].astype(np.float64)
        area = people.area[person : person + 1]
        keypoints = poses.keypoints[candidates][:, labelled]
        if sigmas is None:
            with np.errstate(over="ignore"):
                likeness = -np.hypot(*np.moveaxis(keypoints - truth, -1, 0)).mean(axis=1)
        else:
            likeness = keypoint_similarities(keypoints, truth, area, sigmas[labelled]).mean(axis=1)
        nearest[person] = candidates[np.argmax(likeness)]
    return nearest


def _mean_where_labelled(
    values: NDArray[np.float64], is_labelled: NDArray[np.bool_], axis: int
) -> NDArray[np.float64]:
    count = is_labelled.sum(axis=axis)
    total = np.where(is_labelled, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def mean_defined(values: NDArray[np.float64]) -> float:
    """Average the values that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
