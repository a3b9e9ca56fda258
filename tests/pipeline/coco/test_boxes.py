"""Boxes of a file: of annotations, of a detector with or without the names of its images."""

import json
from pathlib import Path, PurePath
from typing import Any

import pytest

from pipeline.coco.boxes import read_boxes
from pipeline.errors import PeopleError

ANNOTATIONS: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a/x.jpg", "width": 100, "height": 80},
        {"id": 3, "file_name": "b/x.jpg", "width": 100, "height": 80},
        {"id": 5, "file_name": "y.jpg", "width": 100, "height": 80},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 4, "bbox": [10, 10, 20, 30], "area": 300},
        {"id": 2, "image_id": 7, "category_id": 4, "bbox": [90, 70, 20, 30], "area": 300},
        {"id": 3, "image_id": 3, "category_id": 4, "bbox": [1, 1, 5, 5], "area": 9, "iscrowd": 1},
    ],
    "categories": [{"id": 4, "name": "person", "keypoints": ["nose"], "skeleton": []}],
}
DETECTIONS = [
    {"image_id": 5, "category_id": 4, "bbox": [1, 2, 3, 4], "score": 0.9},
    {"image_id": 5, "category_id": 4, "bbox": [5, 6, 7, 8], "score": 0.2},
    {"image_id": 3, "category_id": 9, "bbox": [5, 6, 7, 8], "score": 0.8},
]


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_annotated_people_have_the_score_1_and_boxes_inside_their_image(tmp_path: Path) -> None:
    boxes = read_boxes(write(tmp_path, "people.json", ANNOTATIONS), None, 0.5)
    assert boxes.category_id == 4
    assert boxes.by_image[7].bbox_xywh.tolist() == [[10, 10, 20, 30], [90, 70, 10, 10]]
    assert boxes.by_image[7].scores.tolist() == [1, 1]
    assert boxes.by_image[3].scores.tolist() == []  # a crowd is no person
    assert boxes.by_image[5].scores.tolist() == []


def test_an_image_is_found_by_as_much_of_its_path_as_the_file_states(tmp_path: Path) -> None:
    boxes = read_boxes(write(tmp_path, "people.json", ANNOTATIONS), None, 0.5)
    assert boxes.image_id(PurePath("/data/a/x.jpg")) == 7
    assert boxes.image_id(PurePath("/data/b/x.jpg")) == 3
    assert boxes.image_id(PurePath("y.jpg")) == 5
    with pytest.raises(PeopleError, match=r"gives no box for x\.jpg: it has no such image"):
        boxes.image_id(PurePath("x.jpg"))


def test_annotations_name_the_images_of_detections(tmp_path: Path) -> None:
    annotations = write(tmp_path, "people.json", ANNOTATIONS)
    boxes = read_boxes(write(tmp_path, "boxes.json", DETECTIONS), annotations, 0.5)
    assert boxes.by_image[5].bbox_xywh.tolist() == [[1, 2, 3, 4]]
    assert boxes.by_image[3].scores.tolist() == []  # of another category
    assert boxes.image_id(PurePath("z/y.jpg")) == 5


def test_without_names_the_number_at_the_end_of_a_name_is_the_id(tmp_path: Path) -> None:
    found = [{**each, "category_id": 1} for each in DETECTIONS]
    boxes = read_boxes(write(tmp_path, "boxes.json", found), None, 0.1)
    assert boxes.image_id(PurePath("COCO_val2014_000000000005.jpg")) == 5
    assert boxes.by_image[5].scores.tolist() == [0.9, 0.2]
    with pytest.raises(PeopleError, match="6 is none of its ids"):
        boxes.image_id(PurePath("6.jpg"))
    with pytest.raises(PeopleError, match="ends in no number"):
        boxes.image_id(PurePath("photo.jpg"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image_id": 1}], "entry 0: .* is missing"),
        ([{**DETECTIONS[0], "bbox": [1, 2, 3]}], "entry 0: bbox must hold 4 numbers, got 3"),
        ([{**DETECTIONS[0], "category_id": 1, "bbox": [1, 2, 0, 3]}], "box 0 is"),
        ("boxes", "holds a value, expected COCO annotations or a list of boxes"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(PeopleError, match=message):
        read_boxes(write(tmp_path, "boxes.json", content), None, 0.5)
