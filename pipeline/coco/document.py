"""A COCO JSON file as records, and the one line that tells what contradicts itself in it.

Layout: cocodataset.org, "Data format". Nothing here knows what a person is.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, PeopleError
from pipeline.wording import counted

Record = dict[str, Any]

_LARGEST_WHOLE = 2**53
"""Beyond it, readers that parse JSON numbers as floats see another number."""
_FARTHEST = 1e9
"""Pixels; a coordinate beyond is a mistake, and would not survive float32."""


class Problems:
    """Count the contradictions in a file and keep the first, which is what a person can act on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first = ""
        self._count = 0

    def add(self, message: str, count: int = 1) -> None:
        """Note ``count`` contradictions, the first of which is ``message``."""
        self._first = self._first or message
        self._count += count

    def add_rows(
        self, is_wrong: NDArray[np.bool_] | np.bool_, message: Callable[[int], str]
    ) -> None:
        """Note every true row of ``is_wrong`` (N,); ``message`` words the first."""
        if is_wrong.any():
            self.add(message(int(is_wrong.argmax())), int(is_wrong.sum()))

    def stop(self) -> None:
        """Raise ``PeopleError`` if anything was noted."""
        if self._count:
            more = f" (and {self._count - 1} more in this file)" if self._count > 1 else ""
            raise PeopleError(f"{self._path}: {self._first}{more}")


@dataclass(frozen=True)
class CocoDocument:
    """The three lists of a COCO file, each of JSON objects."""

    path: Path
    images: list[Record]
    annotations: list[Record]
    categories: list[Record]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Parse a file, or raise ``PeopleError`` when it is not JSON or not of COCO's layout."""
        try:
            content = json.loads(path.read_bytes())
        except OSError as cause:
            reason = cause.strerror or cause
            raise PeopleError(f"{path}: cannot be read: {reason}; give a COCO JSON file") from cause
        except (ValueError, RecursionError) as cause:
            raise PeopleError(f"{path}: not JSON: {cause}; give a COCO JSON file") from cause
        lists = {name: _record_list(content, name, path) for name in _LISTS}
        return cls(path, **lists)

    def keypoint_category(self, name: str | None) -> Record:
        """Choose the category called ``name``, else the only one with keypoints, else ``person``.

        Its ``id`` is a whole number; its keypoints are not looked at further.
        """
        if name is not None:
            chosen = [category for category in self.categories if category.get("name") == name]
            if not chosen:
                known = ", ".join(str(category.get("name")) for category in self.categories)
                raise ConfigError(f"{self.path}: no category {name!r}: expected one of {known}")
        else:
            chosen = [category for category in self.categories if category.get("keypoints")]
            if not chosen:
                raise PeopleError(
                    f"{self.path}: no category lists keypoints: expected a keypoint file such as "
                    "person_keypoints_train2017.json"
                )
            if len(chosen) > 1:
                people = [category for category in chosen if category.get("name") == "person"]
                chosen = people or chosen
        if len(chosen) > 1:
            names = ", ".join(str(category.get("name")) for category in chosen)
            raise ConfigError(
                f"{self.path}: {len(chosen)} categories fit ({names}): set category to the name of "
                "one of them"
            )
        if not is_whole(chosen[0].get("id")):
            raise PeopleError(f"{self.path}: category {chosen[0].get('name')!r} lacks a whole id")
        return chosen[0]

    def annotations_of(self, category_id: int, problems: Problems) -> list[Record]:
        """Select a category's annotations; one of a category that the file lacks is a problem."""
        known = [category.get("id") for category in self.categories]
        selected = []
        for record in self.annotations:
            category = record.get("category_id")
            if category == category_id:
                selected.append(record)
            elif category not in known:
                problems.add(
                    f"{annotation_label(record)}: category_id is {category!r:.40}, expected one of "
                    f"{known}"
                )
        return selected


_LISTS = ("images", "annotations", "categories")


def is_whole(value: object) -> bool:
    """Tell whether a JSON value is an integer that every reader of JSON reads alike."""
    return type(value) is int and abs(value) <= _LARGEST_WHOLE


def annotation_label(record: Record) -> str:
    """Name an annotation in a message."""
    if record.get("id") is not None:
        return f"annotation {record['id']!r:.40}"
    return f"annotation without id in image {record.get('image_id')!r:.40}"


def is_repeated(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark repetitions: (N,), true from an id's second occurrence on."""
    is_later = np.ones(len(ids), dtype=np.bool_)
    is_later[np.unique(ids, return_index=True)[1]] = False
    return is_later


def number_rows(
    records: list[Record], field: str, length: int, problems: Problems, *, may_lack: bool = False
) -> NDArray[np.float64]:
    """Read a list of coordinates from each annotation: (N, length) float64, all finite.

    A wrong row is a problem and reads as zeros, as does one that is lacking and may lack.
    """
    rows: list[list[Any]] = []
    nothing = [0] * length
    for record in records:
        values = record.get(field)
        fault = ""
        if values is None:
            fault = "" if may_lack else "is missing"
        elif not isinstance(values, list) or len(values) != length:
            got = counted(len(values), "entry") if isinstance(values, list) else f"{values!r:.40}"
            fault = f"is not {length} numbers long: got {got}"
        elif not set(map(type, values)) <= {int, float}:
            fault = "holds something that is not a number"
        if fault:
            problems.add(f"{annotation_label(record)}: {field} {fault}")
        rows.append(nothing if fault or values is None else values)
    numbers = _float_rows(rows).reshape(-1, length)
    is_far = ~(np.abs(numbers) <= _FARTHEST).all(axis=1)
    problems.add_rows(
        is_far,
        lambda row: (
            f"{annotation_label(records[row])}: {field} holds "
            f"{numbers[row][~(np.abs(numbers[row]) <= _FARTHEST)][0]}, expected finite pixels"
        ),
    )
    return numbers


def number_column(
    records: list[Record],
    field: str,
    is_valid: Callable[[Any], bool],
    expected: str,
    problems: Problems,
    lacking: float = np.nan,
) -> NDArray[np.float64]:
    """Read a number from each annotation: (N,) float64, ``lacking`` where there is none."""
    numbers = []
    for record in records:
        value = record.get(field)
        if value is not None and not (isinstance(value, int | float) and is_valid(value)):
            problems.add(
                f"{annotation_label(record)}: {field} is {value!r:.40}, expected {expected}"
            )
            value = None
        numbers.append(lacking if value is None else float(value))
    return np.array(numbers, dtype=np.float64)


def _float_rows(rows: list[list[Any]]) -> NDArray[np.float64]:
    try:
        return np.array(rows, dtype=np.float64)
    except OverflowError:  # an integer of over 308 digits
        bounded = [[math.inf if abs(value) > 1e300 else value for value in row] for row in rows]
        return np.array(bounded, dtype=np.float64)


def _record_list(content: object, name: str, path: Path) -> list[Record]:
    records = content.get(name) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise PeopleError(
            f"{path}: not the COCO layout: expected an object whose {name!r} is a list of objects; "
            "give a COCO keypoint file such as person_keypoints_train2017.json"
        )
    return records
