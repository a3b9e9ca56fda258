"""Boxes of people in one image, and those that a file states for many images.

The file is a COCO annotation file, or a detector's results in COCO's layout (``image_id``,
``category_id``, ``bbox``, ``score``).
"""

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter

from pipeline.coco.people import People
from pipeline.coco.read_people import read_annotated
from pipeline.coco.records import Detection, Entries, read_json
from pipeline.coco.result_files import read_detections
from pipeline.errors import PeopleError
from pipeline.settings import PeopleSettings

PERSON_CATEGORY = 1
"""Id of persons in COCO, where no annotation file states another."""
_AREA_FRACTION = 0.53  # no area is used here; without a fraction, files without areas are refused
_DETECTIONS = TypeAdapter(list[Detection])


@dataclass(frozen=True)
class Boxes:
    """Boxes of people in an image."""

    bbox_xywh: NDArray[np.float64]  # (P, 4), image pixels, width and height above 0
    scores: NDArray[np.float64]  # (P,), 1 for annotated boxes

    @classmethod
    def of(cls, bbox_xywh: ArrayLike, scores: ArrayLike | None = None) -> Self:
        """Return boxes (P, 4) in image pixels with their scores (P,); None: 1 each.

        Raises:
            PeopleError: a box is not finite, or has no width or height.
        """
        boxes = np.asarray(bbox_xywh, np.float64).reshape(-1, 4)
        bad = np.flatnonzero(~np.isfinite(boxes).all(axis=1) | ~(boxes[:, 2:] > 0).all(axis=1))
        if bad.size:
            raise PeopleError(
                f"box {bad[0]} is {boxes[bad[0]].tolist()}; expected finite x, y, width and height "
                "with width and height above 0; leave the box out"
            )
        given = np.ones(len(boxes)) if scores is None else np.asarray(scores, np.float64)
        return cls(boxes, given.reshape(len(boxes)))

    @classmethod
    def whole_image(cls, size_hw: tuple[int, int]) -> Self:
        """Return one box around all pixels of an image."""
        return cls.of([[0, 0, size_hw[1], size_hw[0]]])

    def select(self, rows: NDArray[Any]) -> Self:
        """Return these rows, by index or by mask."""
        return type(self)(self.bbox_xywh[rows], self.scores[rows])


@dataclass(frozen=True)
class GivenBoxes:
    """Boxes of people by image id, and the images' names where the file states them."""

    path: Path
    category_id: int
    by_image: dict[int, Boxes]
    image_of_name: dict[str, int] | None
    """None: the file names no images; the number in a file's name is then its id."""

    def image_id(self, file: PurePath) -> int:
        """Return the id of an image file.

        Raises:
            PeopleError: the file of boxes has no such image, or two that the name fits.
        """
        if self.image_of_name is None:
            digits = file.stem[len(file.stem.rstrip("0123456789")) :]
            if digits and int(digits) in self.by_image:
                return int(digits)
            found = "ends in no number" if not digits else f"{int(digits)} is none of its ids"
            raise PeopleError(
                f"{self.path} gives no box for {file}: {found}; the number at the end of a file's "
                "name is its image_id, unless --annotations names the images"
            )
        ids = {
            image
            for name, image in self.image_of_name.items()
            if (parts := PurePath(name).parts) == file.parts[-len(parts) :]
        }
        if len(ids) != 1:
            found = f"{len(ids)} of its images have this name" if ids else "it has no such image"
            raise PeopleError(f"{self.path} gives no box for {file}: {found}; leave it out")
        return ids.pop()


def read_boxes(path: Path, annotations: Path | None, min_score: float) -> GivenBoxes:
    """Read the boxes of people in many images.

    annotations: COCO annotation file that names the images of a detector's results.
    min_score: smallest score of a box that is kept; annotated boxes have the score 1.

    Raises:
        PeopleError: a file is at fault.
    """
    content = read_json(path, "COCO annotations, or a detector's results in COCO's layout")
    settings = PeopleSettings(area_fraction=_AREA_FRACTION)
    if isinstance(content, dict):
        return _by_name(path, read_annotated(path, settings, takes_boxes_alone=True), min_score)
    if annotations is not None:
        people = read_annotated(annotations, settings, takes_boxes_alone=True)
        return _by_name(path, read_detections(path, people)[0], min_score)
    if not isinstance(content, list):
        raise PeopleError(f"{path} holds a value, expected COCO annotations or a list of boxes")
    entries = Entries(lambda row: f"{path}: entry {row}")
    found = entries.as_records(content, _DETECTIONS)
    bbox_xywh = entries.number_rows([each["bbox"] for each in found], "bbox", 4)
    scores = np.array([each["score"] for each in found], np.float64)
    ids = np.array([each["image_id"] for each in found], np.int64)
    is_person = np.array([each["category_id"] == PERSON_CATEGORY for each in found], np.bool_)
    grouped = _grouped(ids, bbox_xywh, scores, is_person & (scores >= min_score))
    return GivenBoxes(path, PERSON_CATEGORY, grouped, None)


def _by_name(path: Path, people: People, min_score: float) -> GivenBoxes:
    scores = np.ones(people.num_instances) if people.box_score is None else people.box_score
    ids = people.image_id[people.image_index]
    grouped = _grouped(ids, people.bbox_xywh, scores, scores >= min_score)
    names = zip(people.image_name, people.image_id.tolist(), strict=True)
    nobody = Boxes.of(np.zeros((0, 4)))
    return GivenBoxes(
        path,
        people.category_id,
        {image: grouped.get(image, nobody) for image in people.image_id.tolist()},
        dict(names),
    )


def _grouped(
    image_id: NDArray[np.int64],
    bbox_xywh: NDArray[np.float64],
    scores: NDArray[np.float64],
    is_kept: NDArray[np.bool_],
) -> dict[int, Boxes]:
    """Return the kept boxes of every image that has an entry, in the order of the file."""
    return {
        image: Boxes.of(bbox_xywh[rows], scores[rows])
        for image in np.unique(image_id).tolist()
        for rows in [np.flatnonzero((image_id == image) & is_kept)]
    }
