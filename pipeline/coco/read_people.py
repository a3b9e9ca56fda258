"""Read the people of a COCO keypoint file (cocodataset.org, "Data format", 2).

All that the JSON and the image headers can tell is checked here, before a teacher runs: one line
names the first contradiction and says how many there are. Crowds and people without keypoints are
no instances but are kept: COCO evaluation ignores detections on them.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.annotations import Annotations, Images, read_annotations
from pipeline.coco.document import CocoDocument, Problems, Record, is_repeated, is_whole
from pipeline.coco.image_files import check_image_name, image_size_hw, resolve_image
from pipeline.coco.people import IgnoreRegions, People
from pipeline.coco.skeletons import skeleton_of_category
from pipeline.errors import ImageError, PeopleError
from pipeline.settings import PeopleSettings
from pipeline.wording import counted

_HEADER_THREADS = 8
"""A header costs a seek on a slow disk, and hardly any time of a core."""


def read_people(annotations: Path, image_folder: Path | None, settings: PeopleSettings) -> People:
    """Read and check an annotation file and the headers of the images that hold an instance.

    Without ``image_folder`` no image is looked at.
    """
    document = CocoDocument.read(annotations)
    category = document.keypoint_category(settings.category)
    problems = Problems(annotations)
    try:
        skeleton = skeleton_of_category(category, settings.skeleton)
    except PeopleError as error:
        raise PeopleError(f"{annotations}: {error}") from error
    images = _read_images(document.images, problems)
    records = document.annotations_of(category["id"], problems)
    everyone = read_annotations(
        records, images, skeleton.num_keypoints, settings.area_fraction, problems
    )
    instances, others = everyone[everyone.is_instance], everyone[~everyone.is_instance]
    if not len(instances.ids):
        raise PeopleError(
            f"{annotations}: nobody to learn from: of {counted(len(others.ids), 'annotation')} of "
            f"category {category.get('name')!r} (crowds: {others.is_crowd.sum()}) none is of one "
            "person with keypoints; give a file with labelled keypoints"
        )
    bbox_xywh = _check_instances(instances, images, settings.clip_boxes, problems)
    if image_folder is not None:
        _check_files(image_folder, images, np.unique(instances.image_index), problems)
    return People(
        skeleton=skeleton,
        category_id=category["id"],
        image_id=images.ids,
        image_name=images.names,
        image_size_hw=images.size_hw,
        instance_id=instances.ids,
        image_index=instances.image_index,
        bbox_xywh=bbox_xywh,
        area=instances.area,
        keypoints=_blank_unlabelled(instances.keypoints),
        ignored=_ignore_regions(others),
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


def _read_images(records: list[Record], problems: Problems) -> Images:
    for record in records:
        _check_image_record(record, problems)
    problems.stop()
    records = sorted(records, key=lambda record: int(record["id"]))
    ids = np.array([record["id"] for record in records], dtype=np.int64)
    problems.add_rows(
        is_repeated(ids), lambda row: f"image id {ids[row]} occurs twice: expected distinct ids"
    )
    problems.stop()
    sizes = [(record["height"], record["width"]) for record in records]
    return Images(
        ids=ids,
        names=tuple(record["file_name"] for record in records),
        size_hw=np.array(sizes, dtype=np.int64).reshape(-1, 2),
    )


def _check_image_record(record: Record, problems: Problems) -> None:
    label = f"image {record.get('id')!r:.40}"
    if not is_whole(record.get("id")):
        problems.add(f"{label}: id must be a whole number within 2^53")
    name = record.get("file_name")
    if not isinstance(name, str):
        problems.add(f"{label} lacks file_name: expected a path inside the image folder")
    else:
        try:
            check_image_name(name)
        except PeopleError as error:
            problems.add(str(error))
    for side in ("width", "height"):
        value = record.get(side)
        if value is None:
            problems.add(f"{label} lacks {side}: expected the image's size in pixels")
        elif not is_whole(value) or not 0 < value < 2**31:
            problems.add(f"{label}: {side} is {value!r:.40}, expected whole pixels, 1 or more")


def _check_instances(
    instances: Annotations, images: Images, clip_boxes: bool, problems: Problems
) -> NDArray[np.float64]:
    """Refuse people without a pixel or an area; return their boxes, clipped or as annotated."""
    boxes, size_hw = instances.bbox_xywh, images.size_hw[instances.image_index]
    clipped = clip_boxes_to_images(boxes, size_hw)
    is_empty = (boxes[:, 2:] <= 0).any(axis=1)
    is_outside = (clipped[:, 2:] <= 0).any(axis=1) & ~is_empty
    problems.add_rows(
        is_empty,
        lambda row: (
            f"annotation {instances.ids[row]}: box {boxes[row].tolist()} is empty: expected "
            "x, y, width, height with width and height above 0"
        ),
    )
    problems.add_rows(
        is_outside,
        lambda row: (
            f"annotation {instances.ids[row]}: box {boxes[row].tolist()} lies outside its "
            f"image of {size_hw[row, 1]} x {size_hw[row, 0]} pixels"
        ),
    )
    problems.add_rows(
        ~is_empty & ~(instances.area > 0),
        lambda row: (
            f"annotation {instances.ids[row]}: area is {instances.area[row]:g}, expected more than "
            "0 pixels"
        ),
    )
    problems.stop()
    return clipped if clip_boxes else boxes


def _check_files(folder: Path, images: Images, used: NDArray[np.int64], problems: Problems) -> None:
    def check(index: int) -> str | None:
        name, (height, width) = images.names[index], images.size_hw[index]
        path = resolve_image(folder, name)
        if not os.path.isfile(path):  # false, where Path.is_file raises on a name too long
            return f"image {name!r} is not in the folder {folder}"
        try:
            file_height, file_width = image_size_hw(path)
        except ImageError as error:
            return str(error)
        if (file_height, file_width) == (height, width):
            return None
        return (
            f"image {name!r} is {file_width} x {file_height} pixels (EXIF rotation ignored), but "
            f"the annotations say {width} x {height} (width x height): give the images that were "
            "annotated"
        )

    with ThreadPoolExecutor(_HEADER_THREADS) as threads:
        for message in threads.map(check, used.tolist()):
            if message is not None:
                problems.add(message)
    problems.stop()


def _blank_unlabelled(keypoints: NDArray[np.float64]) -> NDArray[np.float32]:
    """Replace the arbitrary place of unlabelled keypoints by (NaN, NaN, 0)."""
    blank = np.array([np.nan, np.nan, 0])
    return np.where(keypoints[..., 2:] > 0, keypoints, blank).astype(np.float32)


def _ignore_regions(others: Annotations) -> IgnoreRegions:
    return IgnoreRegions(
        annotation_id=others.ids,
        image_index=others.image_index,
        bbox_xywh=others.bbox_xywh,
        area=others.area,
        is_crowd=others.is_crowd,
        num_keypoints=others.num_keypoints,
    )
