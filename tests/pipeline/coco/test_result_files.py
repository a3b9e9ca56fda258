"""Files of poses and boxes that another program wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.coco.people import People
from pipeline.coco.pose_results import result_poses, results_with_score_one
from pipeline.coco.result_files import read_detections, read_results
from pipeline.errors import PeopleError

PeopleMaker = Callable[..., People]
POSE: dict[str, Any] = {"image_id": 10, "category_id": 7, "keypoints": [1.5] * 15, "score": 0.5}
BOX: dict[str, Any] = {"image_id": 20, "category_id": 7, "bbox": [-5, 2, 30, 40], "score": 0.9}
OF_100 = {"annotation_id": 100}


def _write(folder: Path, entries: object) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps(entries))
    return path


def test_results_come_back_with_the_known_fields_only(
    tmp_path: Path, make_people: PeopleMaker
) -> None:
    path = _write(tmp_path, [{**POSE, **OF_100, "bbox": [0, 0, 1, 1], "id": 4}])
    assert read_results(path, make_people()) == [{**POSE, **OF_100}]


def test_results_may_hold_nothing(tmp_path: Path, make_people: PeopleMaker) -> None:
    assert read_results(_write(tmp_path, []), make_people()) == []
    assert result_poses([], 5).keypoints.shape == (0, 5, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 11}, "image_id 11; expected an image of the annotation file"),
        ({"image_id": "10"}, "image_id '10'; expected an integer"),
        ({"image_id": True}, "image_id True; expected an integer"),
        ({"category_id": 1}, "category_id 1; expected 7"),
        ({"keypoints": [1.0] * 14}, "14 numbers in keypoints; expected a list of 15"),
        ({"keypoints": {}}, "an object in keypoints"),
        ({"keypoints": [1.0] * 14 + [float("nan")]}, "holds nan in keypoints"),
        ({"keypoints": [1.0] * 14 + [None]}, "holds None in keypoints"),
        ({"keypoints": [10**400] + [1.0] * 14}, "holds 1000"),
        ({"score": float("inf")}, "score inf; expected a finite number"),
        ({"score": "high"}, "score 'high'"),
        ({"annotation_id": 102}, "an annotation of its image id 10"),
        ({"annotation_id": 5}, "an annotation of its image id 10"),
        (OF_100, "annotation_id 100 like .*entry 0; expected one pose per annotation"),
        ({"annotation_id": None}, "annotation_id None; expected an integer"),
    ],
)
def test_a_wrong_result_is_refused_by_its_number(
    tmp_path: Path, make_people: PeopleMaker, change: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path, [{**POSE, **OF_100}, {**POSE, "annotation_id": 101, **change}])
    with pytest.raises(PeopleError, match=rf"entry 1 .*{message}") as caught:
        read_results(path, make_people())
    assert "\n" not in str(caught.value)


def test_annotation_ids_in_some_entries_only_are_refused(
    tmp_path: Path, make_people: PeopleMaker
) -> None:
    with pytest.raises(PeopleError, match="entry 1 has an annotation_id, unlike"):
        read_results(_write(tmp_path, [POSE, {**POSE, **OF_100}]), make_people())


@pytest.mark.parametrize("field", ["image_id", "category_id", "keypoints", "score"])
def test_a_result_that_lacks_a_field_is_refused(
    tmp_path: Path, make_people: PeopleMaker, field: str
) -> None:
    path = _write(tmp_path, [{k: v for k, v in POSE.items() if k != field}])
    with pytest.raises(PeopleError, match=f"entry 0 has no {field}"):
        read_results(path, make_people())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "is not JSON"),
        (b"\xff\xfe\xff", "is not JSON"),
        (b'{"images": []}', "holds an object; expected a list"),
        (b"[3]", "entry 0 is a number"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, make_people: PeopleMaker, content: bytes, message: str
) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(PeopleError, match=message):
        read_results(path, make_people())


def test_an_absent_file_is_refused(tmp_path: Path, make_people: PeopleMaker) -> None:
    with pytest.raises(PeopleError, match="cannot be read"):
        read_results(tmp_path / "absent.json", make_people())


def test_detections_are_ordered_by_image_unclipped_and_other_categories_counted(
    tmp_path: Path, make_people: PeopleMaker
) -> None:
    boxes = [BOX, {**BOX, "category_id": 3, "bbox": None}, {**BOX, "image_id": 10, "score": 0.1}]
    detections = read_detections(_write(tmp_path, [*boxes, {**BOX, "score": 0.2}]), make_people())
    assert detections.image_index.tolist() == [0, 1, 1]
    assert detections.score.tolist() == [0.1, 0.9, 0.2]
    np.testing.assert_array_equal(detections.bbox_xywh, [[-5, 2, 30, 40]] * 3)
    assert detections.num_other_categories == 1


def test_no_detections_are_an_empty_table(tmp_path: Path, make_people: PeopleMaker) -> None:
    detections = read_detections(_write(tmp_path, []), make_people())
    assert detections.bbox_xywh.shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 5}, "image_id 5"),
        ({"bbox": [0, 0, 0, 5]}, "width and height above 0"),
        ({"bbox": [0, 0, 5, -1]}, "width and height above 0"),
        ({"bbox": [0, float("nan"), 5, 5]}, "holds nan in bbox"),
        ({"bbox": [0, 0, 5]}, "3 numbers in bbox; expected a list of 4"),
        ({"score": float("nan")}, "score nan"),
    ],
)
def test_a_wrong_detection_is_refused_by_its_number(
    tmp_path: Path, make_people: PeopleMaker, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(PeopleError, match=rf"entry 1 .*{message}"):
        read_detections(_write(tmp_path, [BOX, {**BOX, **change}]), make_people())


def test_score_one_orders_by_image_then_annotation_and_keeps_the_poses() -> None:
    ids = [(20, 5), (10, 9), (10, 3)]
    results: list[Any] = [{**POSE, "image_id": i, "annotation_id": a} for i, a in ids]
    ordered = results_with_score_one(results)
    assert [(r["image_id"], r["annotation_id"]) for r in ordered] == sorted(ids)
    assert {r["score"] for r in ordered} == {1.0}
    assert {r["score"] for r in results} == {0.5}
    without: list[Any] = [{**POSE, "image_id": 10, "score": s} for s in (0.1, 0.2)]
    assert all("annotation_id" not in r for r in results_with_score_one(without))
