"""Read the people of a COCO keypoint file (cocodataset.org, "Data format", 2).

The JSON and the image headers are checked whole, before a teacher runs: the message names the first
contradiction and counts the others of its kind. Crowds and people without keypoints
are no instances but are kept: COCO evaluation ignores detections on them.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline.coco.image_files import image_size_hw, resolve_image
from pipeline.coco.people import IgnoreRegions, People
from pipeline.coco.records import AnnotationRecord, Entries, ImageRecord, is_repeated, read_json
from pipeline.coco.skeletons import skeleton_of_category
from pipeline.errors import ConfigError, ImageError, PeopleError
from pipeline.settings import PeopleSettings
from pipeline.wording import counted

_HEADER_THREADS = 8
"""A header costs a seek on a slow disk, and hardly any time of a core."""
_KEYPOINT_FILE = "a COCO keypoint file such as person_keypoints_train2017.json"

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

    @property
    def is_instance(self) -> NDArray[np.bool_]:
        return ~self.is_crowd & (self.num_keypoints > 0)

    def __getitem__(self, rows: NDArray[Any]) -> "Annotations":
        return Annotations(**{name: column[rows] for name, column in vars(self).items()})


def read_people(annotations: Path, image_folder: Path | None, settings: PeopleSettings) -> People:
    """Read and check an annotation file and the headers of the images that hold an instance.

    image_folder: None: no image is read.

    Raises:
        PeopleError: the file, or an image, contradicts itself or the other.
        ConfigError: the settings do not fit the file's categories.
    """
    content = read_json(annotations, _KEYPOINT_FILE)
    image_values, annotation_values, categories = (
        _list_of_objects(content, name, annotations)
        for name in ("images", "annotations", "categories")
    )
    category = _keypoint_category(categories, settings.category, annotations)
    try:
        skeleton = skeleton_of_category(category, settings.skeleton)
    except PeopleError as error:
        raise PeopleError(f"{annotations}: {error}") from error
    category_id: int = category["id"]
    images = _read_images(image_values, annotations)
    everyone = _read_annotations(
        _annotations_of(annotation_values, category_id, categories, annotations),
        images,
        skeleton.num_keypoints,
        settings.area_fraction,
        annotations,
    )
    instances, others = everyone[everyone.is_instance], everyone[~everyone.is_instance]
    if not len(instances.annotation_id):
        raise PeopleError(
            f"{annotations}: nobody to learn from: of {counted(len(others.area), 'annotation')} of "
            f"category {category.get('name')!r} (crowds: {others.is_crowd.sum()}) none is of one "
            "person with keypoints; give a file with labelled keypoints"
        )
    bbox_xywh = _check_instances(instances, images, settings.clip_boxes, annotations)
    if image_folder is not None:
        _check_files(image_folder, images, np.unique(instances.image_index), annotations)
    blank = np.array([np.nan, np.nan, 0])  # for the arbitrary position of unlabelled keypoints
    return People(
        skeleton=skeleton,
        category_id=category_id,
        image_id=images.ids,
        image_name=images.names,
        image_size_hw=images.size_hw,
        instance_id=instances.annotation_id,
        image_index=instances.image_index,
        bbox_xywh=bbox_xywh,
        area=instances.area,
        keypoints=np.where(instances.keypoints[..., 2:] > 0, instances.keypoints, blank).astype(
            np.float32
        ),
        ignored=IgnoreRegions(
            **{field.name: getattr(others, field.name) for field in fields(IgnoreRegions)}
        ),
    )


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


def _list_of_objects(content: object, name: str, path: Path) -> Values:
    values = content.get(name) if isinstance(content, dict) else None
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise PeopleError(
            f"{path}: not the COCO layout: expected an object whose {name!r} is a list of objects; "
            f"give {_KEYPOINT_FILE}"
        )
    return values


def _keypoint_category(categories: Values, name: str | None, path: Path) -> dict[str, Any]:
    """Choose the category called ``name``, else the only one with keypoints, else ``person``."""
    if name is not None:
        chosen = [category for category in categories if category.get("name") == name]
        if not chosen:
            known = ", ".join(str(category.get("name")) for category in categories)
            raise ConfigError(f"{path}: no category {name!r}: expected one of {known}")
    else:
        chosen = [category for category in categories if category.get("keypoints")]
        if not chosen:
            raise PeopleError(f"{path}: no category lists keypoints: expected {_KEYPOINT_FILE}")
        if len(chosen) > 1:
            chosen = [each for each in chosen if each.get("name") == "person"] or chosen
    if len(chosen) > 1:
        names = ", ".join(str(category.get("name")) for category in chosen)
        raise ConfigError(
            f"{path}: {len(chosen)} categories fit ({names}): set category to the name of one of "
            "them"
        )
    return chosen[0]


def _annotations_of(values: Values, category_id: int, categories: Values, path: Path) -> Values:
    """Select the annotations of a category; refuse one of a category that the file lacks."""
    known = [category.get("id") for category in categories]
    found = [value.get("category_id") for value in values]
    Entries(lambda row: f"{path}: {_annotation_name(values[row])}").refuse(
        np.array([category not in known for category in found], dtype=np.bool_),
        lambda row: f"category_id is {found[row]!r:.40}, expected one of {known}",
    )
    return [value for value, category in zip(values, found, strict=True) if category == category_id]


def _check_instances(
    instances: Annotations, images: Images, clip_boxes: bool, path: Path
) -> NDArray[np.float64]:
    """Refuse people without a pixel or an area; return their boxes, clipped or as annotated."""
    boxes, size_hw = instances.bbox_xywh, images.size_hw[instances.image_index]
    entries = Entries(lambda row: f"{path}: annotation {instances.annotation_id[row]}")
    entries.refuse(
        (boxes[:, 2:] <= 0).any(axis=1),
        lambda row: (
            f"box {boxes[row].tolist()} is empty: expected x, y, width, height with width and "
            "height above 0"
        ),
    )
    clipped = clip_boxes_to_images(boxes, size_hw)
    entries.refuse(
        (clipped[:, 2:] <= 0).any(axis=1),
        lambda row: (
            f"box {boxes[row].tolist()} lies outside its image of {size_hw[row, 1]} x "
            f"{size_hw[row, 0]} pixels"
        ),
    )
    entries.refuse(
        ~(instances.area > 0),
        lambda row: f"area is {instances.area[row]:g}, expected more than 0 pixels",
    )
    return clipped if clip_boxes else boxes


def _check_files(folder: Path, images: Images, used: NDArray[np.int64], path: Path) -> None:
    def check(index: int) -> str | None:
        name, (height, width) = images.names[index], images.size_hw[index]
        file = resolve_image(folder, name)
        if not os.path.isfile(file):  # false, where Path.is_file raises on a name too long
            return f"image {name!r} is not in the folder {folder}"
        try:
            file_height, file_width = image_size_hw(file)
        except ImageError as error:
            return str(error)
        if (file_height, file_width) == (height, width):
            return None
        return (
            f"image {name!r} is {file_width} x {file_height} pixels (EXIF rotation ignored), but "
            f"the annotations have {width} x {height} (width x height): give the images that were "
            "annotated"
        )

    with ThreadPoolExecutor(_HEADER_THREADS) as threads:
        found = list(threads.map(check, used.tolist()))
    Entries(lambda _: str(path)).refuse(
        np.array([message is not None for message in found]), lambda row: str(found[row])
    )


def _read_images(values: list[dict[str, Any]], path: Path) -> Images:
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


def _read_annotations(
    values: list[dict[str, Any]],
    images: Images,
    num_keypoints: int,
    area_fraction: float | None,
    path: Path,
) -> Annotations:
    """Turn the records of one category of the file ``path`` into columns.

    area_fraction: area of an annotation that lacks one, as a fraction of its box; None: refuse it.

    Raises:
        PeopleError: names the first annotation that is wrong, and the field.
    """
    entries = Entries(lambda row: f"{path}: {_annotation_name(values[row])}")
    records = entries.as_records(values, _ANNOTATIONS)
    image_index = entries.image_index([record["image_id"] for record in records], images.ids)
    bbox_xywh = entries.number_rows([record["bbox"] for record in records], "bbox", 4)
    keypoints = _keypoints(entries, records, num_keypoints)
    is_crowd = np.array([record.get("iscrowd") == 1 for record in records], dtype=np.bool_)
    annotations = Annotations(
        annotation_id=_annotation_ids(entries, records, images, image_index, bbox_xywh),
        image_index=image_index,
        bbox_xywh=bbox_xywh,
        area=_areas(entries, records, bbox_xywh, area_fraction),
        keypoints=keypoints,
        num_keypoints=_keypoint_counts(entries, records, keypoints, is_crowd),
        is_crowd=is_crowd,
    )
    return annotations[np.lexsort((annotations.annotation_id, image_index))]


def _annotation_name(value: dict[str, Any]) -> str:
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
    rows = [nothing if row is None else row for row in found]
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
) -> NDArray[np.float64]:
    found = [record.get("area") for record in records]
    area = np.array([np.nan if value is None else value for value in found], dtype=np.float64)
    if area_fraction is None:
        entries.refuse(
            np.isnan(area),
            lambda _: (
                "area is missing: add it to the file, or set area_fraction to take that fraction "
                "of the box (people cover about 0.53 of theirs)"
            ),
        )
        return area
    box_area = np.maximum(bbox_xywh[:, 2], 0) * np.maximum(bbox_xywh[:, 3], 0)
    return np.where(np.isnan(area), area_fraction * box_area, area)
