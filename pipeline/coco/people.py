"""Person instances as columns, and the skeleton they share.

Reading them from COCO JSON is ``read_people.py``. Rows of the same index belong to the same person
(``N`` instances) or the same image (``M`` images). Instances are ordered by (image, annotation id),
so that an image is decoded once for all its people.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from store_schemas.skeleton import Skeleton as Skeleton


@dataclass(frozen=True)
class IgnoreRegions:
    """Annotations that are no instances (crowds, people without keypoints).

    COCO evaluation ignores detections on them, so leaving them out would change AP.
    """

    annotation_id: NDArray[np.int64]  # (R,)
    image_index: NDArray[np.int64]  # (R,)
    bbox_xywh: NDArray[np.float64]  # (R, 4), image pixels, as annotated
    area: NDArray[np.float64]  # (R,), image pixels squared
    is_crowd: NDArray[np.bool_]  # (R,)
    num_keypoints: NDArray[np.int64]  # (R,)


@dataclass(frozen=True)
class People:
    """All people of an annotation file, and the images they stand in."""

    skeleton: Skeleton
    category_id: int
    image_id: NDArray[np.int64]  # (M,), every image of the file, people in it or not
    image_name: tuple[str, ...]  # (M,), relative to the image folder, with forward slashes
    image_size_hw: NDArray[np.int64]  # (M, 2)
    instance_id: NDArray[np.int64]  # (N,), the annotation id
    image_index: NDArray[np.int64]  # (N,), row of the image
    bbox_xywh: NDArray[np.float64]  # (N, 4), image pixels
    area: NDArray[np.float64]  # (N,), image pixels squared
    keypoints: NDArray[np.float32]  # (N, K, 3) as (x, y, visibility); unlabelled: (NaN, NaN, 0)
    ignored: IgnoreRegions

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
    regions = people.ignored
    none = np.zeros(0, np.int64)
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
        ignored=type(regions)(
            **{name: getattr(regions, name)[none] for name in type(regions).__dataclass_fields__}
        ),
    )


def spread_rows(num_instances: int, num_people: int) -> NDArray[np.int64]:
    """Return at most ``num_people`` rows, spread evenly over all people, ascending."""
    spread = np.linspace(0, num_instances - 1, min(num_people, num_instances))
    return np.unique(spread.round().astype(np.int64))
