"""Poses as columns: those that a network predicted, and those of COCO results."""

from dataclasses import dataclass, fields
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PeopleError

NO_ANNOTATION = -1


class Poses(Protocol):
    """What measuring localisation needs of poses; ``PosePredictions`` has it."""

    @property
    def image_id(self) -> NDArray[np.int64]: ...  # (P,)
    @property
    def annotation_id(self) -> NDArray[np.int64]: ...  # (P,), -1: unknown
    @property
    def keypoints(self) -> NDArray[np.float64]: ...  # (P, K, 2), image pixels


@dataclass(frozen=True)
class PosePredictions:
    """One row per predicted pose (``P`` rows), in any order."""

    image_id: NDArray[np.int64]  # (P,)
    annotation_id: NDArray[np.int64]  # (P,), -1 where the box came from a detector
    keypoints: NDArray[np.float64]  # (P, K, 2) as (x, y), image pixels
    keypoint_scores: NDArray[np.float64]  # (P, K)
    box_score: NDArray[np.float64]  # (P,), 1 for ground-truth boxes
    crop_area: NDArray[np.float64]  # (P,), area of the padded crop in image pixels squared

    def __post_init__(self) -> None:
        num_poses, num_keypoints = self.keypoint_scores.shape
        expected = (num_poses, num_keypoints, 2)
        if self.keypoints.shape != expected:
            raise ValueError(f"keypoints have shape {self.keypoints.shape}, expected {expected}")
        for column in (self.image_id, self.annotation_id, self.box_score, self.crop_area):
            if column.shape != (num_poses,):
                raise ValueError(f"a column has shape {column.shape}, expected {(num_poses,)}")
        self._refuse_non_finite()

    def _refuse_non_finite(self) -> None:
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


@dataclass(frozen=True)
class ResultPoses:
    """The poses of COCO results as columns."""

    image_id: NDArray[np.int64]  # (P,)
    annotation_id: NDArray[np.int64]  # (P,), -1: unknown
    keypoints: NDArray[np.float64]  # (P, K, 2) as (x, y), image pixels
