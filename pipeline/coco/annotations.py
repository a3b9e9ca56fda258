"""The annotations of a COCO keypoint category as columns, each field checked on its own.

What an image or a box must be to hold a person is ``read_people.py``'s to say.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.document import (
    Problems,
    Record,
    annotation_label,
    is_repeated,
    is_whole,
    number_column,
    number_rows,
)
from pipeline.wording import counted


@dataclass(frozen=True)
class Images:
    """The file's images, ordered by id (M images)."""

    ids: NDArray[np.int64]  # (M,)
    names: tuple[str, ...]
    size_hw: NDArray[np.int64]  # (M, 2)


@dataclass(frozen=True)
class Annotations:
    """The chosen category's annotations, ordered by (image, annotation id): A rows."""

    ids: NDArray[np.int64]  # (A,)
    image_index: NDArray[np.int64]  # (A,)
    bbox_xywh: NDArray[np.float64]  # (A, 4), as annotated
    area: NDArray[np.float64]  # (A,)
    keypoints: NDArray[np.float64]  # (A, K, 3)
    num_keypoints: NDArray[np.int64]  # (A,)
    is_crowd: NDArray[np.bool_]  # (A,)

    @property
    def is_instance(self) -> NDArray[np.bool_]:
        return ~self.is_crowd & (self.num_keypoints > 0)

    def __getitem__(self, rows: NDArray[Any]) -> "Annotations":
        return Annotations(**{name: column[rows] for name, column in vars(self).items()})


def read_annotations(
    records: list[Record],
    images: Images,
    num_keypoints: int,
    area_fraction: float | None,
    problems: Problems,
) -> Annotations:
    """Turn one category's records into columns, or raise ``PeopleError``.

    ``area_fraction`` of its box is the area of an annotation that lacks one; None refuses it.
    """
    image_index = _image_index(records, images, problems)
    bbox_xywh = number_rows(records, "bbox", 4, problems)
    keypoints = number_rows(records, "keypoints", 3 * num_keypoints, problems, may_lack=True)
    keypoints = keypoints.reshape(-1, num_keypoints, 3)
    is_crowd = (
        number_column(records, "iscrowd", (0, 1).__contains__, "0 or 1", problems, lacking=0) == 1
    )
    is_odd = ~np.isin(keypoints[..., 2], (0, 1, 2))
    problems.add_rows(
        is_odd.any(axis=1),
        lambda row: (
            f"{annotation_label(records[row])}: a keypoint's visibility is "
            f"{keypoints[row, is_odd[row], 2][0]:g}, expected 0, 1 or 2"
        ),
    )
    problems.stop()
    annotations = Annotations(
        ids=_annotation_ids(records, images, image_index, bbox_xywh, problems),
        image_index=image_index,
        bbox_xywh=bbox_xywh,
        area=_areas(records, bbox_xywh, area_fraction, problems),
        keypoints=keypoints,
        num_keypoints=_keypoint_counts(records, keypoints, is_crowd, problems),
        is_crowd=is_crowd,
    )
    problems.stop()
    return annotations[np.lexsort((annotations.ids, image_index))]


def _image_index(records: list[Record], images: Images, problems: Problems) -> NDArray[np.int64]:
    index_of_image = {image_id: index for index, image_id in enumerate(images.ids.tolist())}
    image_index = []
    for record in records:
        image_id = record.get("image_id")
        index = index_of_image.get(image_id) if is_whole(image_id) else None
        if index is None:
            problems.add(
                f"{annotation_label(record)}: image_id is {image_id!r:.40}, which is no image of "
                "this file"
            )
        image_index.append(index or 0)
    return np.array(image_index, dtype=np.int64)


def _annotation_ids(
    records: list[Record],
    images: Images,
    image_index: NDArray[np.int64],
    bbox_xywh: NDArray[np.float64],
    problems: Problems,
) -> NDArray[np.int64]:
    ids = []
    for row, record in enumerate(records):
        annotation_id = record.get("id")
        if annotation_id is None:
            annotation_id = _derived_id(images.names[image_index[row]], bbox_xywh[row])
        elif not is_whole(annotation_id):
            problems.add(f"{annotation_label(record)}: id must be a whole number within 2^53")
        ids.append(annotation_id)
    problems.stop()
    column = np.array(ids, dtype=np.int64)
    problems.add_rows(
        is_repeated(column),
        lambda row: (
            f"{annotation_label(records[row])} occurs twice: expected distinct ids"
            + (", or another box" if records[row].get("id") is None else "")
        ),
    )
    return column


def _derived_id(image_name: str, bbox_xywh: NDArray[np.float64]) -> int:
    """Identify an annotation that has no id by its image and box, on every machine alike."""
    content = image_name.encode() + b"\0" + bbox_xywh.astype("<f8").tobytes()
    first_bytes = hashlib.sha256(content).digest()[:8]
    return int.from_bytes(first_bytes, "big") & (2**63 - 1)


def _keypoint_counts(
    records: list[Record],
    keypoints: NDArray[np.float64],
    is_crowd: NDArray[np.bool_],
    problems: Problems,
) -> NDArray[np.int64]:
    """Read ``num_keypoints``, or count the labelled ones; whether there are any must agree."""
    labelled = (keypoints[..., 2] > 0).sum(axis=1)
    stated = number_column(
        records,
        "num_keypoints",
        lambda value: is_whole(value) and value >= 0,
        "a whole number, 0 or more",
        problems,
        lacking=-1,
    ).astype(np.int64)
    counts = np.where(stated < 0, labelled, stated)
    problems.add_rows(
        ~is_crowd & ((counts > 0) != (labelled > 0)),
        lambda row: (
            f"{annotation_label(records[row])}: num_keypoints is {counts[row]}, but "
            f"it has {counted(int(labelled[row]), 'keypoint')} of visibility 1 or 2"
        ),
    )
    return counts


def _areas(
    records: list[Record],
    bbox_xywh: NDArray[np.float64],
    area_fraction: float | None,
    problems: Problems,
) -> NDArray[np.float64]:
    area = number_column(
        records, "area", lambda value: abs(value) <= 1e18, "a finite number", problems
    )
    is_missing = np.array([record.get("area") is None for record in records], dtype=np.bool_)
    if area_fraction is None:
        problems.add_rows(
            is_missing,
            lambda row: (
                f"{annotation_label(records[row])} lacks area: add it to the file, or set "
                "area_fraction to take that fraction of the box (people cover about 0.53 of theirs)"
            ),
        )
        return area
    box_area = np.maximum(bbox_xywh[:, 2], 0) * np.maximum(bbox_xywh[:, 3], 0)
    return np.where(is_missing, area_fraction * box_area, area)
