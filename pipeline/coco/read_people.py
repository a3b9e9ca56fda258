"""Read the people of a COCO keypoint file (cocodataset.org, "Data format", 2).

The JSON and the image headers are checked whole, before a teacher runs: the message names the first
contradiction and counts the others of its kind. Crowds are no instances but are kept, as COCO
evaluation ignores detections on them; so are people without keypoints, unless ``read_everyone.py``
takes them for people.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.annotation_columns import (
    Annotations,
    Images,
    Values,
    annotation_name,
    clip_boxes_to_images,
    read_annotation_columns,
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


def read_people(annotations: Path, image_folder: Path | None, settings: PeopleSettings) -> People:
    """Read and check the labelled people of an annotation file, and the headers of their images.

    image_folder: None: no image is read.

    Raises:
        PeopleError: the file, or an image, contradicts itself or the other, or nobody is labelled.
        ConfigError: the settings do not fit the file's categories.
    """
    people = read_annotated(annotations, settings)
    if image_folder is not None:
        check_image_files(people, image_folder, annotations)
    return people


def read_annotated(
    annotations: Path, settings: PeopleSettings, *, takes_boxes_alone: bool = False
) -> People:
    """Read and check the people of an annotation file.

    takes_boxes_alone: whether annotations without labelled keypoints are people too, as far as
        their boxes have pixels; they need no area, and there may be nobody at all.

    Raises:
        PeopleError: the file contradicts itself, or somebody must be labelled and nobody is.
        ConfigError: the settings do not fit the file's categories.
    """
    content = read_json(annotations, _KEYPOINT_FILE)
    if isinstance(content, list) and content:
        raise PeopleError(
            f"{annotations} must be a COCO annotation file, but is a list, as COCO results are "
            f"(--predictions, --detections); give {_KEYPOINT_FILE}"
        )
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
    everyone = read_annotation_columns(
        _annotations_of(annotation_values, category_id, categories, annotations),
        images,
        skeleton.num_keypoints,
        settings.area_fraction,
        annotations,
        takes_boxes_alone=takes_boxes_alone,
    )
    is_instance = everyone.is_labelled
    if takes_boxes_alone:
        is_instance = is_instance | everyone.is_box_alone(images)
    instances, others = everyone[is_instance], everyone[~is_instance]
    if not (takes_boxes_alone or is_instance.any()):
        raise PeopleError(
            f"{annotations} must hold people with labelled keypoints: of "
            f"{counted(len(others.area), 'annotation')} of category {category.get('name')!r} "
            f"(crowds: {others.is_crowd.sum()}) none is of one person with keypoints; give a file "
            "with labelled keypoints"
        )
    bbox_xywh = _check_instances(instances, images, settings.clip_boxes, annotations)
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


def check_image_files(people: People, folder: Path, path: Path) -> None:
    """Compare the headers of all images that people stand in with the annotation file ``path``.

    Raises:
        PeopleError: names the first image that is missing, unreadable or of another size.
    """

    def check(index: int) -> str | None:
        name, (height, width) = people.image_name[index], people.image_size_hw[index]
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
        found = list(threads.map(check, np.unique(people.image_index).tolist()))
    Entries(lambda _: str(path)).refuse(
        np.array([message is not None for message in found]), lambda row: str(found[row])
    )
