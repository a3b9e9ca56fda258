"""Read the people of a teacher store: labelled ones, annotated boxes alone, detected ones.

A teacher needs a box and an image only, so it can be asked about people whom nobody labelled.
Evaluation and training on annotations read labelled people alone, by ``read_people.py``.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from pipeline.coco.annotation_columns import clip_boxes_to_images
from pipeline.coco.people import People
from pipeline.coco.read_people import check_image_files, read_annotated, read_people
from pipeline.coco.records import Entries
from pipeline.coco.result_files import read_detections
from pipeline.errors import PeopleError
from pipeline.settings import StoredPeopleSettings
from pipeline.wording import counted


class Everyone(NamedTuple):
    """The people of a store, and what was left out of it."""

    people: People
    notes: tuple[str, ...]
    """Who was left out and why, a sentence each."""


def read_everyone(
    annotations: Path, image_folder: Path | None, settings: StoredPeopleSettings
) -> Everyone:
    """Read and check annotated and detected people, and the headers of their images.

    Crowds, and annotations that are marked to be ignored or have no pixel in their image, stay
    ignore regions. Detected people have ids below ``DETECTION_IDS_END``, which follow from image
    name and box; annotated people in a file without labels, and detected people, have no labelled
    keypoint.

    image_folder: None: no image is read.

    Raises:
        PeopleError: a file, or an image, contradicts itself or another, or there is nobody.
        ConfigError: the settings do not fit the file's categories.
    """
    if settings.only_labelled:
        return Everyone(read_people(annotations, image_folder, settings), ())
    people = read_annotated(annotations, settings, takes_boxes_alone=True)
    notes: list[str] = []
    without_pixels = int((~people.ignored.is_crowd & (people.ignored.num_keypoints == 0)).sum())
    if without_pixels:
        notes.append(
            f"{counted(without_pixels, 'annotation')} marked ignore or without a pixel in the "
            "image, kept as ignore regions"
        )
    if settings.detections is not None:
        people, note = _with_detections(people, settings.detections, settings)
        notes.append(note)
    if not people.num_instances:
        raise PeopleError(
            f"{annotations} must hold people: no annotation of category {people.category_id} "
            f"is of one person with a box{''.join(f'; {note}' for note in notes)}; give "
            "annotations with boxes, or a detector's boxes (--detections)"
        )
    if image_folder is not None:
        check_image_files(people, image_folder, annotations)
    return Everyone(people, tuple(notes))


def recorded_settings(
    provenance: Mapping[str, Any], detections: Path | None
) -> StoredPeopleSettings:
    """Return the settings that a store's provenance records for its people.

    A store that records nothing of unlabelled people was written from labelled ones alone.

    detections: path of the detections in place of the recorded one; None: the recorded one.
    """
    recorded = {"only_labelled": True, **provenance.get("people", {})}
    if detections is not None:
        recorded["detections"] = detections
    return StoredPeopleSettings.model_validate(recorded)


def describe_people(people: People) -> str:
    """Count people in words: how many are labelled, and where the others come from."""
    num_labelled, num_detected = int(people.has_labels.sum()), int(people.is_detected.sum())
    if num_labelled == people.num_instances:
        return str(num_labelled)
    num_boxes = people.num_instances - num_labelled - num_detected
    return (
        f"{people.num_instances} ({num_labelled} labelled, {num_boxes} from annotated boxes alone, "
        f"{num_detected} from detections)"
    )


def _with_detections(
    people: People, path: Path, settings: StoredPeopleSettings
) -> tuple[People, str]:
    """Add the people of a detector's boxes who are not annotated; say how many were left out."""
    found, num_other_categories = read_detections(path, people)
    is_low = _scores(found) < settings.detection_threshold
    found = found.select(np.flatnonzero(~is_low))
    boxes = _boxes_in_images(found, path, clip_boxes=settings.clip_boxes)
    ids = _detection_ids(people, found.image_index, boxes)
    found = replace(found, instance_id=ids, bbox_xywh=boxes, area=boxes[:, 2] * boxes[:, 3])
    is_annotated = _overlaps(people, found) > settings.detection_overlap
    rows = np.flatnonzero(~is_annotated)
    best_first = rows[np.argsort(-_scores(found)[rows], kind="stable")]
    kept = best_first[np.unique(ids[best_first], return_index=True)[1]]
    left_out = {
        f"with a score below {settings.detection_threshold:g}": int(is_low.sum()),
        f"that overlap an annotation by more than {settings.detection_overlap:g}": int(
            is_annotated.sum()
        ),
        "that repeat a box": len(rows) - len(kept),
        "of another category": num_other_categories,
    }
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    total = len(is_low) + num_other_categories
    note = f"detections: {len(kept)} of {total} taken" + (reasons and f"; left out: {reasons}")
    if not len(kept):
        return people, note
    return _joined(people, found.select(kept)), note


def _boxes_in_images(found: People, path: Path, *, clip_boxes: bool) -> NDArray[np.float64]:
    """Refuse boxes without a pixel in their image; return the others, clipped or as detected."""
    sizes = found.image_size_hw[found.image_index]
    clipped = clip_boxes_to_images(found.bbox_xywh, sizes)
    Entries(lambda row: f"{path}: bbox {found.bbox_xywh[row].tolist()}").refuse(
        (clipped[:, 2:] <= 0).any(axis=1),
        lambda row: (
            f"lies outside its image of {sizes[row, 1]} x {sizes[row, 0]} pixels, expected a box "
            "in pixels of the annotated image; give detections on these images"
        ),
    )
    return clipped if clip_boxes else found.bbox_xywh


def _detection_ids(
    people: People, image_index: NDArray[np.int64], boxes: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Identify detections by image name and box, on every machine alike: (P,), below -2^62."""

    def digests() -> Iterator[int]:
        for image, box in zip(image_index.tolist(), boxes, strict=True):
            content = b"detection\0" + people.image_name[image].encode() + b"\0"
            digest = hashlib.sha256(content + box.astype("<f8").tobytes()).digest()
            yield int.from_bytes(digest[:8], "big") >> 2

    return np.fromiter((-(2**62) - 1 - digest for digest in digests()), np.int64, len(boxes))


def _overlaps(people: People, found: People) -> NDArray[np.float64]:
    """Return the largest overlap (P,) of each detection with an annotation of its image.

    It is the IoU, and for an ignore region the share of the detection that it covers, as COCO
    evaluation measures both.
    """
    regions = people.ignored
    images = np.concatenate([people.image_index, regions.image_index])
    boxes = np.concatenate([people.bbox_xywh, regions.bbox_xywh])
    is_region = np.arange(len(images)) >= people.num_instances
    order = np.argsort(images, kind="stable")
    images, boxes, is_region = images[order], boxes[order], is_region[order]
    largest = np.zeros(found.num_instances)
    for image, start in zip(*np.unique(found.image_index, return_index=True), strict=True):
        end = np.searchsorted(found.image_index, image, side="right")
        first, last = np.searchsorted(images, (image, image + 1))
        if last > first:
            overlaps = mask.iou(
                cast(Any, found.bbox_xywh[start:end]),  # the stubs know no float64
                cast(Any, boxes[first:last]),
                is_region[first:last].astype(np.uint8).tolist(),
            )
            largest[start:end] = np.asarray(overlaps).max(axis=1)
    return largest


def _scores(people: People) -> NDArray[np.float64]:
    return np.ones(people.num_instances) if people.box_score is None else people.box_score


def _joined(annotated: People, detected: People) -> People:
    """Return both, ordered by (image, id)."""
    both = (annotated, detected)
    everyone = replace(
        annotated,
        instance_id=np.concatenate([people.instance_id for people in both]),
        image_index=np.concatenate([people.image_index for people in both]),
        bbox_xywh=np.concatenate([people.bbox_xywh for people in both]),
        area=np.concatenate([people.area for people in both]),
        keypoints=np.concatenate([people.keypoints for people in both]),
        box_score=np.concatenate([_scores(people) for people in both]),
    )
    return everyone.select(np.lexsort((everyone.instance_id, everyone.image_index)))
