"""Poses and boxes that another program wrote: COCO keypoint results and COCO detections.

Every entry is checked before it is used. pycocotools would take a NaN for a match, fail on an
unknown image with an assertion, and pass over a wrong category in silence.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.pose_results import KeypointResult
from pipeline.errors import PeopleError
from pipeline.wording import counted


@dataclass(frozen=True)
class Detections:
    """Boxes of a detector, ordered by image and within an image as in the file."""

    image_index: NDArray[np.int64]  # (P,), row of the image in ``People``
    bbox_xywh: NDArray[np.float64]  # (P, 4), image pixels, not clipped
    score: NDArray[np.float64]  # (P,)
    num_other_categories: int
    """Entries left out because they are of another category."""


def read_results(path: Path, people: People) -> list[KeypointResult]:
    """Read COCO keypoint results for these people, keeping the fields that evaluation uses.

    Areas and boxes in the file are dropped: COCO takes a pose's area from its keypoints.
    """
    return check_results(_read_list(path), people, str(path))


def check_results(entries: Sequence[Any], people: People, source: str) -> list[KeypointResult]:
    """Check results entry by entry and return copies of them with the known fields only."""
    checker = _ResultChecker(people)
    return [checker.check(entry, f"{source}: entry {i}") for i, entry in enumerate(entries)]


def read_detections(path: Path, people: People) -> Detections:
    """Read the boxes of a detector in COCO's layout (image_id, category_id, bbox, score)."""
    index_of_image = {int(image): index for index, image in enumerate(people.image_id)}
    rows: list[tuple[int, list[float], float]] = []
    entries = _read_list(path)
    num_other_categories = 0
    for i, entry in enumerate(entries):
        where = f"{path}: entry {i}"
        image_id = _known_image(entry, where, index_of_image)
        if _integer(entry, "category_id", where) != people.category_id:
            num_other_categories += 1
            continue
        box = _numbers(entry, "bbox", 4, where)
        if min(box[2:]) <= 0:
            raise PeopleError(
                f"{where} (image id {image_id}) has the box {box}; expected x, y, width, height "
                "with width and height above 0; remove or correct the entry"
            )
        rows.append((index_of_image[image_id], box, _number(entry, "score", where)))
    rows.sort(key=lambda row: row[0])  # stable: an image is decoded once for all its boxes
    return Detections(
        image_index=np.array([row[0] for row in rows], dtype=np.int64),
        bbox_xywh=np.array([row[1] for row in rows], dtype=np.float64).reshape(-1, 4),
        score=np.array([row[2] for row in rows], dtype=np.float64),
        num_other_categories=num_other_categories,
    )


class _ResultChecker:
    """Knows what the people allow, and which annotations have had their pose."""

    def __init__(self, people: People) -> None:
        self.category_id = people.category_id
        self.num_keypoints = people.skeleton.num_keypoints
        self.image_ids = {int(image): i for i, image in enumerate(people.image_id)}
        annotations = np.concatenate([people.instance_id, people.ignored.annotation_id])
        images = np.concatenate([people.image_index, people.ignored.image_index])
        self.image_of_annotation = dict(
            zip(annotations.tolist(), people.image_id[images].tolist(), strict=True)
        )
        self.seen: dict[int, str] = {}
        self.has_annotation_ids: bool | None = None

    def check(self, entry: Any, where: str) -> KeypointResult:
        image_id = _known_image(entry, where, self.image_ids)
        category_id = _integer(entry, "category_id", where)
        if category_id != self.category_id:
            raise PeopleError(
                f"{where} has category_id {category_id}; expected {self.category_id}, the "
                "category of the annotation file; remove or correct the entry"
            )
        result = KeypointResult(
            image_id=image_id,
            category_id=category_id,
            keypoints=_numbers(entry, "keypoints", 3 * self.num_keypoints, where),
            score=_number(entry, "score", where),
        )
        self._refuse_partial_annotation_ids("annotation_id" in entry, where)
        if self.has_annotation_ids:
            result["annotation_id"] = self._annotation_id(entry, image_id, where)
        return result

    def _refuse_partial_annotation_ids(self, has_one: bool, where: str) -> None:
        if self.has_annotation_ids is None:
            self.has_annotation_ids = has_one
        if has_one != self.has_annotation_ids:
            raise PeopleError(
                f"{where} {'has an' if has_one else 'has no'} annotation_id, unlike the entries "
                "before it; expected all entries to have one or none; make them alike"
            )

    def _annotation_id(self, entry: Any, image_id: int, where: str) -> int:
        annotation_id = _integer(entry, "annotation_id", where)
        if self.image_of_annotation.get(annotation_id) != image_id:
            raise PeopleError(
                f"{where} has annotation_id {annotation_id}; expected an annotation of its image "
                f"id {image_id}; use results made for this annotation file"
            )
        if annotation_id in self.seen:
            raise PeopleError(
                f"{where} has annotation_id {annotation_id} like {self.seen[annotation_id]}; "
                "expected one pose per annotation; leave annotation_id out of detector results"
            )
        self.seen[annotation_id] = where
        return annotation_id


def _read_list(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_bytes())
    except OSError as error:
        raise PeopleError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise PeopleError(
            f"{path} is not JSON ({error}); expected a list in the layout of COCO results"
        ) from error
    if not isinstance(entries, list):
        raise PeopleError(
            f"{path} holds {_kind(entries)}; expected a list of entries in the layout of COCO "
            "results; an annotation file cannot stand in for it"
        )
    return entries


def _known_image(entry: Any, where: str, known: dict[int, int]) -> int:
    if not isinstance(entry, dict):
        raise PeopleError(f"{where} is {_kind(entry)}; expected an object with image_id and score")
    image_id = _integer(entry, "image_id", where)
    if image_id not in known:
        raise PeopleError(
            f"{where} has image_id {image_id}; expected an image of the annotation file, which "
            f"has {len(known)}; use results made for this annotation file"
        )
    return image_id


def _integer(entry: dict[str, Any], key: str, where: str) -> int:
    value = _field(entry, key, where)
    if not isinstance(value, int) or isinstance(value, bool):
        raise PeopleError(f"{where} has {key} {_shown(value)}; expected an integer; correct it")
    return value


def _number(entry: dict[str, Any], key: str, where: str) -> float:
    value = _field(entry, key, where)
    if not _is_finite_number(value):
        raise PeopleError(
            f"{where} has {key} {_shown(value)}; expected a finite number; correct it"
        )
    return float(value)


def _numbers(entry: dict[str, Any], key: str, count: int, where: str) -> list[float]:
    values = _field(entry, key, where)
    if not isinstance(values, list) or len(values) != count:
        found = counted(len(values), "number") if isinstance(values, list) else _kind(values)
        raise PeopleError(
            f"{where} has {found} in {key}; expected a list of {count} numbers; correct it"
        )
    wrong = [value for value in values if not _is_finite_number(value)]
    if wrong:
        raise PeopleError(
            f"{where} holds {_shown(wrong[0])} in {key}; expected finite numbers; correct it"
        )
    return [float(value) for value in values]


def _field(entry: dict[str, Any], key: str, where: str) -> Any:
    if key not in entry:
        raise PeopleError(f"{where} has no {key}; found {_shown(sorted(entry))}; add it")
    return entry[key]


def _is_finite_number(value: Any) -> bool:
    # The comparison is false for NaN and exact for integers that no float can hold.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
