"""The records of COCO JSON files, and the message of the first fault in them.

Numbers must be JSON numbers: neither text nor booleans stand in for them. Fields that are not
listed here are ignored. Formats: https://cocodataset.org/#format-data and #format-results.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from pipeline.coco.image_files import checked_image_name
from pipeline.errors import PeopleError

Id = Annotated[int, Field(ge=-(2**53), le=2**53)]
"""Beyond 2^53, programs that read JSON numbers as floats read another number."""
Pixels = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
"""A coordinate; a larger one is a mistake and would not survive float32."""
Area = Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)]
Side = Annotated[int, Field(gt=0, lt=2**31)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

RecordT = TypeVar("RecordT")


class ImageRecord(TypedDict):
    """An image of an annotation file."""

    id: Id
    file_name: Annotated[str, AfterValidator(checked_image_name)]
    width: Side
    height: Side


class AnnotationRecord(TypedDict):
    """An annotated person, a crowd, or a person without keypoints."""

    id: NotRequired[Id | None]
    image_id: Id
    bbox: list[Pixels]
    """x, y, width, height."""
    keypoints: NotRequired[list[Pixels] | None]
    """x, y, visibility in turn."""
    num_keypoints: NotRequired[Annotated[int, Field(ge=0, le=2**53)] | None]
    area: NotRequired[Area | None]
    iscrowd: NotRequired[Literal[0, 1] | None]
    ignore: NotRequired[Any]
    """Marks a region in which nobody was annotated, where it is true; other tools' field."""


class CategoryRecord(TypedDict):
    """A category with keypoints."""

    id: Id
    keypoints: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    skeleton: NotRequired[
        list[Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]] | None
    ]
    """Pairs of keypoints, counted from 1."""


class KeypointResult(TypedDict):
    """A predicted pose."""

    image_id: int
    category_id: int
    keypoints: list[Finite]
    """x, y, score in turn; image pixels."""
    score: Finite
    bbox: NotRequired[list[Finite] | None]
    """x, y, width, height; the area of the pose is then the box's, else that of its keypoints."""
    annotation_id: NotRequired[int]
    """The annotation whose box the pose was predicted in; no field of COCO's."""


class DetectionCategory(TypedDict):
    """The image and the category of a detection, whatever else it holds."""

    image_id: int
    category_id: int


class Detection(DetectionCategory):
    """A box of a detector."""

    bbox: list[Finite]
    """x, y, width, height."""
    score: Finite


@dataclass(frozen=True)
class Entries:
    """The entries of a JSON list, which are checked all at once: the message names the first."""

    name: Callable[[int], str]
    """Names the file and the entry, by the entry's place in the list."""

    def as_records(
        self, values: Sequence[Any], records: TypeAdapter[list[RecordT]]
    ) -> list[RecordT]:
        """Return the entries as records.

        Raises:
            PeopleError: names the first faulty field.
        """
        try:
            return records.validate_python(values, strict=True)
        except ValidationError as error:
            faults = error.errors(include_url=False)
            rows = {fault["loc"][0] for fault in faults}
            first = faults[0]
            raise self.refusal(int(first["loc"][0]), _in_words(first), len(rows)) from error

    def refuse(self, is_wrong: NDArray[np.bool_] | np.bool_, reason: Callable[[int], str]) -> None:
        """Refuse the entries where ``is_wrong`` (N,); ``reason`` is the fault of the first.

        Raises:
            PeopleError: names the first and counts the others.
        """
        if is_wrong.any():
            row = int(is_wrong.argmax())
            raise self.refusal(row, reason(row), int(is_wrong.sum()))

    def number_rows(self, rows: Sequence[Sequence[float]], field: str, length: int) -> NDArray[Any]:
        """Return the lists of numbers of a field as (N, length) float64.

        Raises:
            PeopleError: one has another length.
        """
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self.refuse(
            lengths != length,
            lambda row: f"{field} must hold {length} numbers, got {lengths[row]}",
        )
        return np.array(rows, dtype=np.float64).reshape(-1, length)

    def image_index(self, wanted: Sequence[int], image_id: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places (N,) of the wanted ids among the image ids (M,) of the annotation file.

        Raises:
            PeopleError: there is no image of such an id.
        """
        place = {image: index for index, image in enumerate(image_id.tolist())}
        found = np.array([place.get(image, -1) for image in wanted], dtype=np.int64)
        self.refuse(
            found < 0,
            lambda row: (
                f"image_id is {wanted[row]}, which is none of the {len(place)} images of the "
                "annotation file"
            ),
        )
        return found

    def refusal(self, row: int, reason: str, count: int = 1) -> PeopleError:
        """Return the error of an entry, which names it and counts the ``count`` wrong ones."""
        more = f" (and {count - 1} more in this file)" if count > 1 else ""
        return PeopleError(f"{self.name(row)}: {reason}{more}")


def read_json(path: Path, expected: str) -> Any:
    """Parse a JSON file.

    expected: what the file should be, for the message.

    Raises:
        PeopleError: it cannot be read or is not JSON.
    """
    try:
        content = path.read_bytes()
        try:
            return from_json(content)
        except ValueError:  # json also takes other encodings, a byte order mark and lone surrogates
            return json.loads(content)
    except OSError as cause:
        reason = cause.strerror or cause
        raise PeopleError(f"{path}: cannot be read: {reason}; give {expected}") from cause
    except (ValueError, RecursionError) as cause:
        raise PeopleError(f"{path}: not JSON: {cause}; give {expected}") from cause


def is_repeated(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark repetitions: (N,), true from an id's second occurrence on."""
    is_later = np.ones(len(ids), dtype=np.bool_)
    is_later[np.unique(ids, return_index=True)[1]] = False
    return is_later


def _in_words(fault: Mapping[str, Any]) -> str:
    """Return a fault that pydantic found as a part of a message."""
    field, *places = (*map(str, fault["loc"][1:]),) or ("it",)
    field += "".join(f"[{place}]" for place in places)
    if fault["type"] == "missing":
        return f"{field} is missing"
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    expected = fault["msg"].replace("Input should be", "expected")
    return f"{field} is {fault['input']!r:.40}, {expected[0].lower()}{expected[1:]}"
