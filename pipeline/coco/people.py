"""People as columns: boxes in images, with or without annotated keypoints, and their skeleton.

``read_people.py`` reads labelled people from COCO JSON, ``read_everyone.py`` those without labels
too. Rows of the same index belong to the same person (``N`` instances) or the same image (``M``
images). People who were read are ordered by (image, id), so that an image is decoded once for all
of them.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from store_schemas.people import Skeleton as Skeleton

DETECTION_IDS_END = -(2**53)
"""Ids of detected people lie below it; those that an annotation file may state do not."""


@dataclass(frozen=True)
class IgnoreRegions:
    """Annotations that are no instances: crowds, and people without keypoints where only labelled
    people count.

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

    def joined(self, others: "IgnoreRegions") -> "IgnoreRegions":
        """Return these regions and others, ordered by (image, annotation id)."""
        columns = {
            field.name: np.concatenate([getattr(self, field.name), getattr(others, field.name)])
            for field in fields(IgnoreRegions)
        }
        order = np.lexsort((columns["annotation_id"], columns["image_index"]))
        return IgnoreRegions(**{name: column[order] for name, column in columns.items()})


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
    instance_id: NDArray[np.int64]  # (N,), distinct; an annotated person's annotation id
    image_index: NDArray[np.int64]  # (N,), row of the image
    bbox_xywh: NDArray[np.float64]  # (N, 4), image pixels
    area: NDArray[np.float64]  # (N,), image pixels squared
    keypoints: NDArray[np.float32]  # (N, K, 3) as (x, y, visibility); unlabelled: (NaN, NaN, 0)
    ignored: IgnoreRegions = field(default_factory=IgnoreRegions.none)
    box_score: NDArray[np.float64] | None = None
    """(N,), the scores of a detector's boxes, 1 for annotated boxes beside them; None: there is no
    detected person, or the people come from a store, which does not keep scores."""

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

    @property
    def has_labels(self) -> NDArray[np.bool_]:
        """(N,), true for people with a labelled keypoint."""
        return np.asarray(self.is_labelled.any(axis=1))

    @property
    def is_detected(self) -> NDArray[np.bool_]:
        """(N,), true for people of ``read_everyone`` who stand in a detector's box."""
        return np.asarray(self.instance_id < DETECTION_IDS_END)

    def as_evaluated(self) -> Self:
        """Return the people that COCO compares poses with: those with a labelled keypoint.

        Annotated people without one become ignore regions, as they are in every evaluation of the
        annotation file; detected people are left out.
        """
        has_labels, is_region = self.has_labels, ~(self.has_labels | self.is_detected)
        if has_labels.all():
            return self
        regions = np.flatnonzero(is_region)
        added = IgnoreRegions(
            annotation_id=self.instance_id[regions],
            image_index=self.image_index[regions],
            bbox_xywh=self.bbox_xywh[regions],
            area=self.area[regions],
            is_crowd=np.zeros(len(regions), np.bool_),
            num_keypoints=np.zeros(len(regions), np.int64),
        )
        return replace(self.select(np.flatnonzero(has_labels)), ignored=self.ignored.joined(added))

    def select(self, rows: NDArray[np.int64]) -> Self:
        """Return the people of these rows in this order, with all images and ignore regions."""
        return replace(
            self,
            instance_id=self.instance_id[rows],
            image_index=self.image_index[rows],
            bbox_xywh=self.bbox_xywh[rows],
            area=self.area[rows],
            keypoints=self.keypoints[rows],
            box_score=None if self.box_score is None else self.box_score[rows],
        )


def people_of_rows(people: People, rows: NDArray[np.int64]) -> People:
    """Return these people with their images, and no ignore regions: AP is of them alone."""
    images, image_index = np.unique(people.image_index[rows], return_inverse=True)
    return replace(
        people.select(rows),
        image_id=people.image_id[images],
        image_name=tuple(people.image_name[image] for image in images.tolist()),
        image_size_hw=people.image_size_hw[images],
        image_index=image_index.astype(np.int64),
        ignored=IgnoreRegions.none(),
    )


def spread_rows(num_instances: int, num_people: int) -> NDArray[np.int64]:
    """Return at most ``num_people`` rows, spread evenly over all people, ascending."""
    spread = np.linspace(0, num_instances - 1, min(num_people, num_instances))
    return np.unique(spread.round().astype(np.int64))
