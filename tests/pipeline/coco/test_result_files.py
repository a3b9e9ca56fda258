"""Files of poses and boxes that another program wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.coco.people import People
from pipeline.coco.poses import result_poses, results_with_score_one
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
    known = {**POSE, **OF_100, "bbox": [0, 0, 1, 1]}
    path = _write(tmp_path, [{**known, "area": 1.0, "id": 4}])
    assert read_results(path, make_people()) == [known]


@pytest.mark.parametrize("empty", [None, []])
def test_an_empty_box_is_none(tmp_path: Path, make_people: PeopleMaker, empty: object) -> None:
    path = _write(tmp_path, [{**POSE, "bbox": empty}, POSE])
    assert read_results(path, make_people()) == [POSE, POSE]


def test_results_may_hold_nothing(tmp_path: Path, make_people: PeopleMaker) -> None:
    assert read_results(_write(tmp_path, []), make_people()) == []
    assert result_poses([], 5).keypoints.shape == (0, 5, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 11}, "image_id is 11, which is none of the 3 images of the annotation file"),
        ({"image_id": "10"}, "image_id is '10', expected a valid integer"),
        ({"image_id": True}, "image_id is True, expected a valid integer"),
        ({"category_id": 1}, "category_id is 1, expected 7"),
        ({"keypoints": [1.0] * 14}, "keypoints must hold 15 numbers, got 14"),
        ({"keypoints": {}}, "keypoints is {}, expected a valid list"),
        (
            {"keypoints": [1.0] * 14 + [float("nan")]},
            r"keypoints\[14\] is nan, expected a finite",
        ),
        ({"keypoints": [1.0] * 14 + [None]}, r"keypoints\[14\] is None, expected a valid number"),
        ({"keypoints": [10**400] + [1.0] * 14}, r"keypoints\[0\] is 1000"),
        ({"score": float("inf")}, "score is inf, expected a finite number"),
        ({"score": "high"}, "score is 'high', expected a valid number"),
        ({"annotation_id": 102}, "annotation_id is 102, .* no annotation of its image id 10"),
        ({"annotation_id": 5}, "annotation_id is 5, which is no annotation of its image id 10"),
        (OF_100, "annotation_id is 100, as in entry 0; expected one pose per annotation"),
        ({"annotation_id": None}, "annotation_id is None, expected a valid integer"),
        ({"bbox": [0, 0, 1]}, "has a bbox, unlike the entries before it; give one in all"),
        ({"bbox": "none"}, "bbox is 'none', expected a valid list"),
    ],
)
def test_a_wrong_result_is_refused_by_its_number(
    tmp_path: Path, make_people: PeopleMaker, change: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path, [{**POSE, **OF_100}, {**POSE, "annotation_id": 101, **change}])
    with pytest.raises(PeopleError, match=rf"results.json: entry 1: {message}") as caught:
        read_results(path, make_people())
    assert "\n" not in str(caught.value)


def test_annotation_ids_in_some_entries_only_are_refused(
    tmp_path: Path, make_people: PeopleMaker
) -> None:
    with pytest.raises(PeopleError, match="entry 1: has an annotation_id, unlike"):
        read_results(_write(tmp_path, [POSE, {**POSE, **OF_100}]), make_people())


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (([0, 0, 1, 1], None), "entry 1: has no bbox, unlike"),
        (([0, 0, 1, 1], [0, 0, 1]), "entry 1: bbox must hold 4 numbers, got 3"),
        (([0, 0, 1, float("nan")], None), r"entry 0: bbox\[3\] is nan, expected a finite number"),
    ],
)
def test_boxes_that_pycocotools_cannot_use_are_refused(
    tmp_path: Path, make_people: PeopleMaker, boxes: tuple[object, object], message: str
) -> None:
    path = _write(tmp_path, [{**POSE, "bbox": box} for box in boxes])
    with pytest.raises(PeopleError, match=message):
        read_results(path, make_people())


@pytest.mark.parametrize("field", ["image_id", "category_id", "keypoints", "score"])
def test_a_result_that_lacks_a_field_is_refused(
    tmp_path: Path, make_people: PeopleMaker, field: str
) -> None:
    path = _write(tmp_path, [{k: v for k, v in POSE.items() if k != field}])
    with pytest.raises(PeopleError, match=f"entry 0: {field} is missing"):
        read_results(path, make_people())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "json: not JSON: .*; give a list of entries"),
        (b"\xff\xfe\xff", "json: not JSON: .*; give a list of entries"),
        (b'{"images": []}', "holds an object or a value, expected a list"),
        (b"[3]", "entry 0: it is 3, expected a valid dictionary"),
        (b"[" * 100_000, "json: not JSON: .*; give a list of entries"),
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
    path = _write(tmp_path, [*boxes, {**BOX, "score": 0.2}])
    detected, num_other_categories = read_detections(path, make_people())
    assert detected.image_index.tolist() == [0, 1, 1]
    assert detected.box_score is not None
    assert detected.box_score.tolist() == [0.1, 0.9, 0.2]
    np.testing.assert_array_equal(detected.bbox_xywh, [[-5, 2, 30, 40]] * 3)
    assert num_other_categories == 1


def test_no_detections_are_an_empty_table(tmp_path: Path, make_people: PeopleMaker) -> None:
    detected, _ = read_detections(_write(tmp_path, []), make_people())
    assert detected.bbox_xywh.shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 5}, "image_id is 5, which is none of the 3 images"),
        ({"bbox": [0, 0, 0, 5]}, r"bbox is \[0.0, .*, expected a width and height above 0"),
        ({"bbox": [0, 0, 5, -1]}, r"bbox is \[0.0, .*, expected a width and height above 0"),
        ({"bbox": [0, float("nan"), 5, 5]}, r"bbox\[1\] is nan, expected a finite number"),
        ({"bbox": [0, 0, 5]}, "bbox must hold 4 numbers, got 3"),
        ({"score": float("nan")}, "score is nan, expected a finite number"),
    ],
)
def test_a_wrong_detection_is_refused_by_its_number(
    tmp_path: Path, make_people: PeopleMaker, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(PeopleError, match=rf"entry 1: {message}"):
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
