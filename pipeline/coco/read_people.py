"""Read the people of a COCO keypoint file (cocodataset.org, "Data format", 2).

The JSON and the image headers are checked whole, before a teacher runs: the message names the first
contradiction and counts the others of its kind. Crowds and people without keypoints
are no instances but are kept: COCO evaluation ignores detections on them.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.annotations import (
    Annotations,
    Images,
    annotation_name,
    read_annotations,
    read_images,
)
from pipeline.coco.image_files import image_size_hw, resolve_image
from pipeline.coco.people import IgnoreRegions, People
from pipeline.coco.records import Entries, read_json
from pipeline.coco.skeletons import skeleton_of_category
from pipeline.errors import ConfigError, ImageError, PeopleError
from pipeline.settings import PeopleSettings
from pipeline.wording import counted

_HEADER_THREADS = 8
"""A header costs a seek on a slow disk, and hardly any time of a core."""
_KEYPOINT_FILE = "a COCO keypoint file such as person_keypoints_train2017.json"

Values = list[dict[str, Any]]


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
    images = read_images(image_values, annotations)
    everyone = read_annotations(
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
        keypoints=_blank_unlabelled(instances.keypoints),
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

    Args:
        bbox_xywh: (N, 4) float64, image pixels.
        size_hw: (N, 2) int64.
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
    Entries(lambda row: f"{path}: {annotation_name(values[row])}").refuse(
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


def _blank_unlabelled(keypoints: NDArray[np.float64]) -> NDArray[np.float32]:
    """Replace the arbitrary position of unlabelled keypoints by (NaN, NaN, 0)."""
    blank = np.array([np.nan, np.nan, 0])
    return np.where(keypoints[..., 2:] > 0, keypoints, blank).astype(np.float32)
