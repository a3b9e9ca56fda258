"""Compare people with those of a store, person by person: a digest cannot name who moved."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import IgnoreRegions, People
from pipeline.teacher_store.plan import people_identity
from pipeline.wording import counted
from store_schemas.errors import IdentityError
from store_schemas.metadata import compare_identity

WAY_OUT = "give the annotations that the store was made from, or write to another path"

Difference = tuple[str, str]
"""Field below ``people``, and what differs in words with both values."""


def compare_people(stored: People, now: People, way_out: str = WAY_OUT) -> None:
    """Refuse people that are not those of a store.

    Raises:
        IdentityError: names the field, the keypoint, image or annotation id, both values and the
            way out.
    """
    if stored.has_labels.all() and not now.has_labels.all():
        way_out = f"give --only-labelled if the store was made of labelled people alone; {way_out}"
    for field, what in _differences(stored, now):
        raise IdentityError(f"identity field 'people.{field}' differs: {what}; {way_out}")
    # the rest: the skeleton's other fields, and values that are equal except for their bits
    ours, theirs = ({"people": people_identity(people).to_json()} for people in (stored, now))
    compare_identity(ours, theirs, way_out=way_out)


def _differences(stored: People, now: People) -> Iterator[Difference]:
    """Yield the first difference of each kind, those that cause others first."""
    yield from _compare_names(stored.skeleton.keypoint_names, now.skeleton.keypoint_names)
    yield from _compare_ids("image_id", "image", stored.image_id, now.image_id)
    for image, was, name in zip(
        stored.image_id.tolist(), stored.image_name, now.image_name, strict=True
    ):
        if was != name:
            yield "image_name", f"the store has {was!r} as image {image}, now it is {name!r}"
    yield from _compare_rows("image_size_hw", "image", stored.image_id, stored, now)
    ids = stored.instance_id
    yield from _compare_ids("instance_id", "annotation", ids, now.instance_id)
    yield from _compare_rows("image_index", "annotation", ids, stored, now)
    yield from _compare_rows("bbox_xywh", "annotation", ids, stored, now)
    for row in _differing(stored.keypoints, now.keypoints)[:1]:
        keypoint = _differing(stored.keypoints[row], now.keypoints[row])[0]
        where = f"keypoint {stored.skeleton.keypoint_names[keypoint]!r} of annotation {ids[row]}"
        what = _both(where, stored.keypoints[row, keypoint], now.keypoints[row, keypoint])
        yield "keypoints", what
    yield from _compare_rows("area", "annotation", ids, stored, now)
    ids, what = stored.ignored.annotation_id, "annotation that is no instance"
    yield from _compare_ids("ignored_annotation_id", what, ids, now.ignored.annotation_id)
    for name in IgnoreRegions.__dataclass_fields__:
        for field, found in _compare_rows(name, what, ids, stored.ignored, now.ignored):
            yield f"ignored_{field}", found


def _compare_names(stored: tuple[str, ...], now: tuple[str, ...]) -> Iterator[Difference]:
    for index, (was, name) in enumerate(zip(stored, now, strict=False)):
        if was != name:
            what = f"the store has {was!r} as keypoint {index}, now it is {name!r}"
            yield "skeleton.keypoint_names", what
    if len(stored) != len(now):
        what = f"the store has {counted(len(stored), 'keypoint')}, now there are {len(now)}"
        yield "skeleton.keypoint_names", what


def _compare_ids(
    field: str, what: str, stored: NDArray[np.int64], now: NDArray[np.int64]
) -> Iterator[Difference]:
    for absent, present, words in (
        (now, stored, f"the store has {what} %d, now there is none"),
        (stored, now, f"the store has no {what} %d, now there is one"),
    ):
        missing = np.setdiff1d(present, absent)
        if len(missing):
            yield field, words % missing[0] + _more(len(missing) - 1)
    for place in _differing(stored, now)[:1]:
        order = f"the store has {what} {stored[place]} in place {place}, now it is {now[place]}"
        yield field, order


def _compare_rows(
    field: str, what: str, ids: NDArray[np.int64], stored: object, now: object
) -> Iterator[Difference]:
    before, after = getattr(stored, field), getattr(now, field)
    rows = _differing(before, after)
    if len(rows):
        row = rows[0]
        found = _both(f"{what} {ids[row]}", before[row], after[row])
        yield field, found + _more(len(rows) - 1)


def _differing(stored: NDArray[Any], now: NDArray[Any]) -> NDArray[np.int64]:
    """Return the rows that differ; NaN equals NaN."""
    differs = (stored != now) & ~((stored != stored) & (now != now))
    return np.flatnonzero(differs.any(axis=tuple(range(1, differs.ndim))))


def _both(where: str, stored: NDArray[Any], now: NDArray[Any]) -> str:
    return f"of {where} the store has {_values(stored)}, now it is {_values(now)}"


def _values(values: NDArray[Any]) -> str:
    # numpy's shortest text of a value: a float32 as Python's float would show digits it lacks
    return f"[{', '.join(map(str, values))}]" if values.ndim else str(values)


def _more(count: int) -> str:
    return f" ({count} more differ)" if count else ""
