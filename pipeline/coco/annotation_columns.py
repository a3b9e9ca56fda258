"""The images and the annotations of one category of a COCO file, as columns.

Every record is checked, and the message names the first one that is wrong. Who of the annotations
is a person to learn from is decided in ``read_people.py``.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline.coco.people import IgnoreRegions
from pipeline.coco.records import AnnotationRecord, Entries, ImageRecord, is_repeated
from pipeline.wording import counted

Values = list[dict[str, Any]]
_IMAGES = TypeAdapter(list[ImageRecord])
_ANNOTATIONS = TypeAdapter(list[AnnotationRecord])


@dataclass(frozen=True)
class Images:
    """The file's images, ordered by id (M images)."""

    ids: NDArray[np.int64]  # (M,)
    names: tuple[str, ...]
    size_hw: NDArray[np.int64]  # (M, 2)


@dataclass(frozen=True)
class Annotations(IgnoreRegions):
    """The annotations of one category, ordered by (image, annotation id): R rows."""

    keypoints: NDArray[np.float64]  # (R, K, 3)
    is_marked: NDArray[np.bool_]  # (R,), true where the file's own field says to ignore it

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """(R,), true for one person with labelled keypoints."""
        return ~self.is_crowd & (self.num_keypoints > 0)

    def is_box_alone(self, images: "Images") -> NDArray[np.bool_]:
        """(R,), true for one person without keypoints whose box can be cropped."""
        clipped = clip_boxes_to_images(self.bbox_xywh, images.size_hw[self.image_index])
        has_pixels = ((self.bbox_xywh[:, 2:] > 0) & (clipped[:, 2:] > 0)).all(axis=1)
        is_person = ~self.is_crowd & ~self.is_marked & (self.num_keypoints == 0)
        return np.asarray(is_person & has_pixels & (self.area > 0))

    def __getitem__(self, rows: NDArray[Any]) -> "Annotations":
        return Annotations(**{name: column[rows] for name, column in vars(self).items()})


def clip_boxes_to_images(
    bbox_xywh: NDArray[np.float64], size_hw: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Intersect boxes with their images, whose pixels span [0, W] x [0, H].

    Along an axis where it lies inside, a box comes back bit for bit; where it lies outside, its
    width or height comes back as 0 or less.

    bbox_xywh: (N, 4) float64, image pixels. size_hw: (N, 2) int64.
    """
    corner, extent, limit = bbox_xywh[:, :2], bbox_xywh[:, 2:], size_hw[:, ::-1]
    is_inside = (corner >= 0) & (corner + extent <= limit)
    clipped_corner = np.maximum(corner, 0)
    clipped_extent = np.minimum(corner + extent, limit) - clipped_corner
    return np.concatenate([clipped_corner, np.where(is_inside, extent, clipped_extent)], axis=1)


def read_images(values: list[dict[str, Any]], path: Path) -> Images:
    """Turn the image records of the file ``path`` into columns, or raise ``PeopleError``."""
    entries = Entries(lambda row: f"{path}: image {values[row].get('id')!r:.40}")
    records = entries.as_records(values, _IMAGES)
    ids = np.array([record["id"] for record in records], dtype=np.int64)
    entries.refuse(is_repeated(ids), lambda _: "id occurs twice, expected distinct ids")
    order = np.argsort(ids)
    sizes = [(record["height"], record["width"]) for record in records]
    return Images(
        ids=ids[order],
        names=tuple(records[row]["file_name"] for row in order),
        size_hw=np.array(sizes, dtype=np.int64).reshape(-1, 2)[order],
    )


def read_annotation_columns(
    values: list[dict[str, Any]],
    images: Images,
    num_keypoints: int,
    area_fraction: float | None,
    path: Path,
    *,
    takes_boxes_alone: bool,
) -> Annotations:
    """Turn the records of one category of the file ``path`` into columns.

    area_fraction: area of an annotation that lacks one, as a fraction of its box; None: refuse it.
    takes_boxes_alone: annotations without labelled keypoints get the area of their box instead.

    Raises:
        PeopleError: names the first annotation that is wrong, and the field.
    """
    entries = Entries(lambda row: f"{path}: {annotation_name(values[row])}")
    records = entries.as_records(values, _ANNOTATIONS)
    image_index = entries.image_index([record["image_id"] for record in records], images.ids)
    bbox_xywh = entries.number_rows([record["bbox"] for record in records], "bbox", 4)
    keypoints = _keypoints(entries, records, num_keypoints)
    is_crowd = np.array([record.get("iscrowd") == 1 for record in records], dtype=np.bool_)
    counts = _keypoint_counts(entries, records, keypoints, is_crowd)
    needs_no_area = np.asarray(takes_boxes_alone & (counts == 0))
    annotations = Annotations(
        annotation_id=_annotation_ids(entries, records, images, image_index, bbox_xywh),
        image_index=image_index,
        bbox_xywh=bbox_xywh,
        area=_areas(entries, records, bbox_xywh, area_fraction, needs_no_area),
        keypoints=keypoints,
        num_keypoints=counts,
        is_crowd=is_crowd,
        is_marked=np.array([bool(record.get("ignore")) for record in records], dtype=np.bool_),
    )
    return annotations[np.lexsort((annotations.annotation_id, image_index))]


def annotation_name(value: dict[str, Any]) -> str:
    """Name an annotation in a message."""
    if value.get("id") is not None:
        return f"annotation {value['id']!r:.40}"
    return f"annotation without id in image {value.get('image_id')!r:.40}"


def _keypoints(
    entries: Entries, records: list[AnnotationRecord], num_keypoints: int
) -> NDArray[np.float64]:
    """Return (R, K, 3), zeros where an annotation has none."""
    nothing = [0.0] * (3 * num_keypoints)
    found = [record.get("keypoints") for record in records]
    rows = [row or nothing for row in found]  # some tools write [] for nobody's keypoints
    keypoints = entries.number_rows(rows, "keypoints", 3 * num_keypoints)
    keypoints = keypoints.reshape(-1, num_keypoints, 3)
    is_odd = ~np.isin(keypoints[..., 2], (0, 1, 2))
    entries.refuse(
        is_odd.any(axis=1),
        lambda row: (
            f"a keypoint's visibility is {keypoints[row, is_odd[row], 2][0]:g}, expected 0, 1 or 2"
        ),
    )
    return keypoints


def _annotation_ids(
    entries: Entries,
    records: list[AnnotationRecord],
    images: Images,
    image_index: NDArray[np.int64],
    bbox_xywh: NDArray[np.float64],
) -> NDArray[np.int64]:
    stated = [record.get("id") for record in records]
    ids = np.array(
        [
            _derived_id(images.names[image_index[row]], bbox_xywh[row]) if given is None else given
            for row, given in enumerate(stated)
        ],
        dtype=np.int64,
    )
    entries.refuse(
        is_repeated(ids),
        lambda row: (
            "occurs twice, expected distinct ids"
            + (", or another box" if stated[row] is None else "")
        ),
    )
    return ids


def _derived_id(image_name: str, bbox_xywh: NDArray[np.float64]) -> int:
    """Identify an annotation that has no id by its image and box, on every machine alike."""
    content = image_name.encode() + b"\0" + bbox_xywh.astype("<f8").tobytes()
    first_bytes = hashlib.sha256(content).digest()[:8]
    return int.from_bytes(first_bytes, "big") & (2**63 - 1)


def _keypoint_counts(
    entries: Entries,
    records: list[AnnotationRecord],
    keypoints: NDArray[np.float64],
    is_crowd: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Read ``num_keypoints``, or count the labelled ones; whether there are any must agree."""
    labelled = (keypoints[..., 2] > 0).sum(axis=1)
    found = [record.get("num_keypoints") for record in records]
    stated = np.array([-1 if count is None else count for count in found], dtype=np.int64)
    counts = np.where(stated < 0, labelled, stated)
    entries.refuse(
        ~is_crowd & ((counts > 0) != (labelled > 0)),
        lambda row: (
            f"num_keypoints is {counts[row]}, but it has "
            f"{counted(int(labelled[row]), 'keypoint')} of visibility 1 or 2"
        ),
    )
    return counts


def _areas(
    entries: Entries,
    records: list[AnnotationRecord],
    bbox_xywh: NDArray[np.float64],
    area_fraction: float | None,
    needs_no_area: NDArray[np.bool_],
) -> NDArray[np.float64]:
    found = [record.get("area") for record in records]
    area = np.array([np.nan if value is None else value for value in found], dtype=np.float64)
    box_area = np.maximum(bbox_xywh[:, 2], 0) * np.maximum(bbox_xywh[:, 3], 0)
    if area_fraction is None:
        area = np.where(np.isnan(area) & needs_no_area, box_area, area)
        entries.refuse(
            np.isnan(area),
            lambda _: (
                "area is missing: add it to the file, or set area_fraction to take that fraction "
                "of the box (people cover about 0.53 of theirs)"
            ),
        )
        return area
    return np.where(np.isnan(area), area_fraction * box_area, area)
