"""People as columns: boxes in images, with or without annotated keypoints, and their skeleton.

``read_people.py`` reads annotated people from COCO JSON. Rows of the same index belong to the same
person (``N`` instances) or the same image (``M`` images). Annotated people are ordered by (image,
annotation id), so that an image is decoded once for all its people.
"""

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from store_schemas.people import Skeleton as Skeleton


@dataclass(frozen=True)
class IgnoreRegions:
    """Annotations that are no instances: crowds, and people without keypoints.

    COCO evaluation ignores detections on them, so leaving them out would change AP.
    """

    annotation_id: NDArray[np.int64]  # (R,)
    image_index: NDArray[np.int64]  # (R,)
    bbox_xywh: NDArray[np.float64]  # (R, 4), image pixels, as annotated
    area: NDArray[np.float64]  # (R,), image pixels squared
    is_crowd: NDArray[np.bool_]  # (R,)
    num_keypoints: NDArray[np.int64]  # (R,)

    @classmethod
    def none(cls) -> Self:
        """Return no regions at all."""
        ids, numbers = np.zeros(0, np.int64), np.zeros(0, np.float64)
        return cls(ids, ids, numbers.reshape(0, 4), numbers, ids.astype(np.bool_), ids)


@dataclass(frozen=True)
class People:
    """People in boxes, and the images they stand in.

    A box with an image is enough: whoever has no annotation has no labelled keypoint.
    """

    skeleton: Skeleton
    category_id: int
    image_id: NDArray[np.int64]  # (M,), every image of the annotation file, people in it or not
    image_name: tuple[str, ...]  # (M,), relative to the image folder, with forward slashes
    image_size_hw: NDArray[np.int64]  # (M, 2)
    instance_id: NDArray[np.int64]  # (N,), distinct; the annotation id of an annotated person
    image_index: NDArray[np.int64]  # (N,), row of the image
    bbox_xywh: NDArray[np.float64]  # (N, 4), image pixels
    area: NDArray[np.float64]  # (N,), image pixels squared
    keypoints: NDArray[np.float32]  # (N, K, 3) as (x, y, visibility); unlabelled: (NaN, NaN, 0)
    ignored: IgnoreRegions = field(default_factory=IgnoreRegions.none)
    box_score: NDArray[np.float64] | None = None
    """(N,), the scores of a detector's boxes; None: the people are annotated."""

    def with_boxes(
        self,
        image_index: NDArray[np.int64],
        bbox_xywh: NDArray[np.float64],
        box_score: NDArray[np.float64] | None = None,
    ) -> Self:
        """Return people without annotations in boxes on the same images, in the order given.

        Their ids count from 1; no keypoint is labelled; the area is the box's.

        image_index: (P,) int64, row of each box's image; boxes of one image should follow another.
        bbox_xywh: (P, 4) float64, image pixels, width and height above 0.
        box_score: (P,) float64; None: 1 each.
        """
        count = len(image_index)
        unlabelled = np.array([np.nan, np.nan, 0], np.float32)
        return replace(
            self,
            instance_id=np.arange(1, count + 1),
            image_index=image_index,
            bbox_xywh=bbox_xywh,
            area=bbox_xywh[:, 2] * bbox_xywh[:, 3],
            keypoints=np.tile(unlabelled, (count, self.skeleton.num_keypoints, 1)),
            ignored=IgnoreRegions.none(),
            box_score=np.ones(count) if box_score is None else box_score,
        )

    @property
    def num_instances(self) -> int:
        return len(self.instance_id)

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """(N, K), true where a keypoint has a position (visibility 1 or 2)."""
        return np.asarray(self.keypoints[..., 2] > 0)


def people_of_rows(people: People, rows: NDArray[np.int64]) -> People:
    """Return these people with their images, and no ignore regions: AP is of them alone."""
    images, image_index = np.unique(people.image_index[rows], return_inverse=True)
    return replace(
        people,
        image_id=people.image_id[images],
        image_name=tuple(people.image_name[image] for image in images.tolist()),
        image_size_hw=people.image_size_hw[images],
        instance_id=people.instance_id[rows],
        image_index=image_index.astype(np.int64),
        bbox_xywh=people.bbox_xywh[rows],
        area=people.area[rows],
        keypoints=people.keypoints[rows],
        ignored=IgnoreRegions.none(),
        box_score=None if people.box_score is None else people.box_score[rows],
    )


def spread_rows(num_instances: int, num_people: int) -> NDArray[np.int64]:
    """Return at most ``num_people`` rows, spread evenly over all people, ascending."""
    spread = np.linspace(0, num_instances - 1, min(num_people, num_instances))
    return np.unique(spread.round().astype(np.int64))
