"""The boxes of the people in each image: the whole image, a file's, or a detector's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.boxes import Boxes, GivenBoxes

Image = NDArray[np.uint8]


class BoxSource(Protocol):
    """Knows the boxes of the people in photographs and in frames of videos."""

    def image_id(self, file: Path, number: int) -> int:
        """Return the id of a photograph, which is the ``number``-th input, counted from 1."""
        ...

    def in_photograph(self, image: Image, image_id: int) -> Boxes:
        """Return the boxes in a photograph."""
        ...

    def in_frame(self, image: Image, index: int) -> Boxes | None:
        """Return the boxes in a frame, counted from 0; None: they follow the poses before."""
        ...


class _NumbersImages:
    def image_id(self, file: Path, number: int) -> int:
        return number


class WholeImages(_NumbersImages):
    """Takes each image for the box of one person."""

    def in_photograph(self, image: Image, image_id: int) -> Boxes:
        return Boxes.whole_image((image.shape[0], image.shape[1]))

    def in_frame(self, image: Image, index: int) -> Boxes | None:
        return self.in_photograph(image, index)


@dataclass(frozen=True)
class DetectedBoxes(_NumbersImages):
    """Runs a detector on every photograph, and on every so many frames of a video."""

    detect: Callable[[Image], Boxes]
    every_frames: int

    def in_photograph(self, image: Image, image_id: int) -> Boxes:
        return self.detect(image)

    def in_frame(self, image: Image, index: int) -> Boxes | None:
        return self.detect(image) if index % self.every_frames == 0 else None


@dataclass(frozen=True)
class FiledBoxes:
    """Takes the boxes that a file states; the id of a frame is its number, counted from 1."""

    given: GivenBoxes

    def image_id(self, file: Path, number: int) -> int:
        """Return the id that the file of boxes has for a photograph, or raise PeopleError."""
        return self.given.image_id(file)

    def in_photograph(self, image: Image, image_id: int) -> Boxes:
        return self.given.by_image[image_id]

    def in_frame(self, image: Image, index: int) -> Boxes | None:
        return self.given.by_image.get(index + 1)
