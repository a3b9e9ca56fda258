"""Poses and boxes that another program wrote: COCO keypoint results and COCO detections.

Every entry is checked before it is used. pycocotools would take a NaN for a match, fail on an
unknown image with an assertion, and ignore a wrong category without a message.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from pipeline.coco.people import People
from pipeline.coco.records import (
    Detection,
    DetectionCategory,
    Entries,
    KeypointResult,
    is_repeated,
    read_json,
)
from pipeline.errors import PeopleError

_RESULTS = TypeAdapter(list[KeypointResult])
_CATEGORIES = TypeAdapter(list[DetectionCategory])
_DETECTIONS = TypeAdapter(list[Detection])


def read_results(path: Path, people: People) -> list[KeypointResult]:
    """Read COCO keypoint results for these people, keeping the fields that evaluation uses.

    Raises:
        PeopleError: the file is no list of results, or contradicts the people.
    """
    return check_results(_read_list(path), people, str(path))


def check_results(values: Sequence[Any], people: People, source: str) -> list[KeypointResult]:
    """Check results and return copies of them with the known fields only.

    A box that is null or empty is left out, as pycocotools takes an empty one for none.

    source: where they come from, for the message.

    Raises:
        PeopleError: names the first entry that is no result, or contradicts the people.
    """
    entries = Entries(lambda row: f"{source}: entry {row}")
    results = entries.as_records(values, _RESULTS)
    entries.image_index([result["image_id"] for result in results], people.image_id)
    category_id = np.array([result["category_id"] for result in results])
    entries.refuse(
        category_id != people.category_id,
        lambda row: (
            f"category_id is {category_id[row]}, expected {people.category_id}, the category of "
            "the annotation file"
        ),
    )
    num_numbers = 3 * people.skeleton.num_keypoints
    entries.number_rows([result["keypoints"] for result in results], "keypoints", num_numbers)
    _check_boxes(entries, results)
    _check_annotation_ids(entries, results, people)
    return results


def read_detections(path: Path, people: People) -> tuple[People, int]:
    """Read the boxes of a detector in COCO's layout (image_id, category_id, bbox, score).

    people: their images and their category are those of the detections.

    Returns:
        people: those in the boxes, ordered by image and within an image as in the file; the boxes
            are not clipped.
        num_other_categories: entries left out because they are of another category.

    Raises:
        PeopleError: the file is no list of detections, or names an unknown image.
    """
    values = _read_list(path)
    entries = Entries(lambda row: f"{path}: entry {row}")
    found = entries.as_records(values, _CATEGORIES)
    image_index = entries.image_index([each["image_id"] for each in found], people.image_id)
    is_chosen = np.array([each["category_id"] == people.category_id for each in found], np.bool_)
    chosen = np.flatnonzero(is_chosen)
    chosen = chosen[np.argsort(image_index[chosen], kind="stable")]
    entries = Entries(lambda row: f"{path}: entry {chosen[row]}")
    detections = entries.as_records([values[row] for row in chosen], _DETECTIONS)
    boxes = entries.number_rows([detection["bbox"] for detection in detections], "bbox", 4)
    entries.refuse(
        (boxes[:, 2:] <= 0).any(axis=1),
        lambda row: f"bbox is {boxes[row].tolist()}, expected a width and height above 0",
    )
    scores = np.array([detection["score"] for detection in detections], dtype=np.float64)
    return people.with_boxes(image_index[chosen], boxes, scores), len(values) - len(chosen)


def _check_boxes(entries: Entries, results: Sequence[KeypointResult]) -> None:
    """Remove empty boxes, and refuse boxes in some entries only or of another length."""
    for result in results:
        if not result.get("bbox"):
            result.pop("bbox", None)
    if _all_have(entries, results, "bbox"):
        entries.number_rows([result["bbox"] or [] for result in results], "bbox", 4)


def _all_have(entries: Entries, results: Sequence[KeypointResult], field: str) -> bool:
    """Return whether the entries have an optional field, which all or none of them must have."""
    has_one = np.array([field in result for result in results], dtype=np.bool_)
    article = "an" if field.startswith("a") else "a"
    entries.refuse(
        has_one != has_one[:1].all(),
        lambda row: (
            f"has {article if has_one[row] else 'no'} {field}, unlike the entries before it; "
            "give one in all entries or in none"
        ),
    )
    return bool(has_one.any())


def _check_annotation_ids(
    entries: Entries, results: Sequence[KeypointResult], people: People
) -> None:
    """Refuse annotation ids in some entries only, of another image, or repeated."""
    if not _all_have(entries, results, "annotation_id"):
        return
    ignored = people.ignored
    annotations = np.concatenate([people.instance_id, ignored.annotation_id])
    images = people.image_id[np.concatenate([people.image_index, ignored.image_index])]
    image_of_annotation = dict(zip(annotations.tolist(), images.tolist(), strict=True))
    ids = [result["annotation_id"] for result in results]
    expected = [result["image_id"] for result in results]
    found = [image_of_annotation.get(annotation) for annotation in ids]
    entries.refuse(
        np.array([image != wanted for image, wanted in zip(found, expected, strict=True)]),
        lambda row: (
            f"annotation_id is {ids[row]}, which is no annotation of its image id "
            f"{expected[row]}; use results made for this annotation file"
        ),
    )
    entries.refuse(
        is_repeated(np.array(ids)),
        lambda row: (
            f"annotation_id is {ids[row]}, as in entry {ids.index(ids[row])}; expected one pose "
            "per annotation; leave annotation_id out of detector results"
        ),
    )


def _read_list(path: Path) -> list[Any]:
    values = read_json(path, "a list of entries in the layout of COCO results")
    if not isinstance(values, list):
        raise PeopleError(
            f"{path} holds an object or a value, expected a list of entries in the layout of COCO "
            "results; an annotation file cannot stand in for it"
        )
    return values
