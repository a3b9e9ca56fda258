"""A change of people is named by person and field, with both values and a way out."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.coco.people import People
from pipeline.teacher_store.people_comparison import compare_people
from store_schemas.errors import IdentityError

Change = Callable[[People], People]


def with_values(field: str, place: Any, value: Any) -> Change:
    def change(people: People) -> People:
        values = getattr(people, field).copy()
        values[place] = value
        return replace(people, **{field: values})

    return change


def without_the_last_person(people: People) -> People:
    names = ("instance_id", "image_index", "bbox_xywh", "area", "keypoints")
    return replace(people, **{name: getattr(people, name)[:-1] for name in names})


def with_skeleton(**changes: Any) -> Change:
    return lambda people: replace(people, skeleton=replace(people.skeleton, **changes))


def with_ignored(**changes: Any) -> Change:
    return lambda people: replace(people, ignored=replace(people.ignored, **changes))


NAMES = tuple(f"keypoint_{k}" for k in (0, 2, 1, 3, 4))

CHANGES: list[tuple[Change, str, str]] = [
    (with_values("bbox_xywh", (1, 2), 7.5), "bbox_xywh",
     r"of annotation 101 the store has \[.*, 63\..*\], now it is \[.*, 7\.5, "),
    (with_values("keypoints", (1, 3, 0), 2.5), "keypoints",
     r"of keypoint 'keypoint_3' of annotation 101 the store has \[\d+\..*\], now it is \[2\.5, "),
    (with_values("area", 2, 5.0), "area",
     r"of annotation 102 the store has \d+\.\d+, now it is 5\.0;"),
    (with_values("area", slice(None), 5.0), "area",
     r"of annotation 100 .* now it is 5\.0 \(2 more differ\);"),
    (with_values("image_index", 1, 1), "image_index", "of annotation 101 .* 0, now it is 1;"),
    (with_values("image_size_hw", (0, 1), 9), "image_size_hw",
     r"of image 10 the store has \[2000, 2000\], now it is \[2000, 9\]"),
    (with_values("image_id", 2, 31), "image_id", "the store has image 30, now there is none;"),
    (with_values("image_id", slice(None), [20, 10, 30]), "image_id",
     "has image 10 in place 0, now it is 20;"),
    (lambda people: replace(people, image_name=("0.jpg", "x.jpg", "2.jpg")), "image_name",
     r"the store has '1\.jpg' as image 20, now it is 'x\.jpg';"),
    (without_the_last_person, "instance_id", "the store has annotation 102, now there is none;"),
    (with_values("instance_id", 2, 200), "instance_id", "has annotation 102, now there is none;"),
    (with_skeleton(keypoint_names=NAMES), "skeleton.keypoint_names",
     "the store has 'keypoint_1' as keypoint 1, now it is 'keypoint_2';"),
    (with_skeleton(keypoint_names=("keypoint_0",)), "skeleton.keypoint_names",
     "the store has 5 keypoints, now there are 1;"),
    (with_skeleton(edges=((0, 2),)), "skeleton.edges", r"\[\[0,1\]\], now it is \[\[0,2\]\];"),
    (lambda people: replace(people, category_id=8), "category_id", "7, now it is 8;"),
    (with_ignored(annotation_id=np.array([901])), "ignored_annotation_id",
     "has annotation that is no instance 900, now there is none;"),
    (with_ignored(area=np.array([3.0])), "ignored_area", r"no instance 900 .* now it is 3\.0;"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "field", "what"), CHANGES)
def test_a_change_is_named(make_people: Any, change: Change, field: str, what: str) -> None:
    stored = make_people(ignored_boxes=[(1, 1.0, 2.0, 3.0, 4.0)])
    match = rf"^identity field 'people\.{re.escape(field)}' differs: .*{what}"
    with pytest.raises(IdentityError, match=match) as refusal:
        compare_people(stored, change(stored), way_out="go home")
    assert str(refusal.value).endswith("; go home")
    assert "\n" not in str(refusal.value)
    with pytest.raises(IdentityError):
        compare_people(change(stored), stored)


@pytest.mark.parametrize("crowds", [[], [(1, 1.0, 2.0, 3.0, 4.0)]])
def test_the_same_people_are_the_same_unlabelled_keypoints_included(
    make_people: Any, crowds: list[Any]
) -> None:
    stored, now = make_people(ignored_boxes=crowds), make_people(ignored_boxes=crowds)
    assert np.isnan(stored.keypoints).any()
    compare_people(stored, now)


def test_a_value_that_differs_in_its_bits_alone_is_refused_by_its_digest(make_people: Any) -> None:
    stored = with_values("bbox_xywh", (0, 0), 0.0)(make_people())
    now = with_values("bbox_xywh", (0, 0), -0.0)(stored)
    with pytest.raises(IdentityError, match=r"'people\.arrays\.bbox_xywh' differs"):
        compare_people(stored, now)
