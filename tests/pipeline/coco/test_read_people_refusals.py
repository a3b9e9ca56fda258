"""Every refusal of reading people from COCO JSON, with its message."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.coco.read_people import read_people
from pipeline.errors import PeopleError
from tests.support.coco_documents import PLAIN, Json, changed, document, read, with_person


def test_annotations_without_id_that_look_alike_are_refused(tmp_path: Path) -> None:
    content = changed(lambda content: [row.pop("id") for row in content["annotations"][1:3]])
    with pytest.raises(PeopleError, match="annotation without id in image 1: occurs twice"):
        read(tmp_path, content)


NAN, INF = float("nan"), float("inf")
HUGE = 10**400
PEOPLE_REFUSED = [
    (with_person(image_id=99), "annotation 12: image_id is 99, which is none of the 2 images"),
    (with_person(image_id=True), "annotation 12: image_id is True"),
    (with_person(image_id=None), "annotation 12: image_id is missing"),
    (with_person(category_id=4), "annotation 12: category_id is 4, expected one of"),
    (with_person(id=10), "annotation 10: occurs twice"),
    (with_person(id=True), "annotation True: id is True, expected a valid integer"),
    (with_person(id="x"), "annotation 'x': id is 'x', expected a valid integer"),
    (
        with_person(id=2**53 + 1),
        "annotation 9007199254740993: id is .*, expected less than",
    ),
    (with_person(id=HUGE), "annotation 1000+: id is 1000+, expected less than or equal to 9007"),
    (with_person(keypoints=[1, 2, 2]), "annotation 12: keypoints must hold 9 numbers, got 3"),
    (with_person(keypoints="none"), "keypoints is 'none', expected a valid list"),
    (with_person(keypoints=None), "num_keypoints is 2, but it has 0 keypoints of visibility"),
    (with_person(keypoints=["1"] * 9), r"keypoints\[0\] is '1', expected a valid number"),
    (
        with_person(keypoints=[NAN, 2, 2] * 3),
        r"12: keypoints\[0\] is nan, expected a finite",
    ),
    (
        with_person(keypoints=[1, INF, 2] * 3),
        r"12: keypoints\[1\] is inf, expected a finite number",
    ),
    (with_person(keypoints=[1, HUGE, 2] * 3), r"annotation 12: keypoints\[1\] is 1000+, expected"),
    (with_person(keypoints=[1, 2, 3] * 3), "annotation 12: a keypoint's visibility is 3, expected"),
    (with_person(keypoints=[1, 2, 0.5] * 3), "visibility is 0.5, expected 0, 1 or 2"),
    (with_person(num_keypoints=0), "num_keypoints is 0, but it has 2 keypoints of visibility"),
    (with_person(num_keypoints=HUGE), "annotation 12: num_keypoints is 1000+"),
    (with_person(iscrowd=2), "annotation 12: iscrowd is 2, expected 0 or 1"),
    (with_person(bbox=None), "annotation 12: bbox is missing"),
    (with_person(bbox=[1, 2, 3]), "annotation 12: bbox must hold 4 numbers, got 3"),
    (
        with_person(bbox=[1, NAN, 3, 4]),
        r"12: bbox\[1\] is nan, expected a finite number",
    ),
    (with_person(bbox=[1, 2, 0, 4]), r"annotation 12: box \[1.0, 2.0, 0.0, 4.0\] is empty"),
    (with_person(bbox=[1, 2, 3, -4]), "annotation 12: box .* is empty: expected x, y, width"),
    (with_person(bbox=[40, 2, 3, 4]), "annotation 12: box .* outside its image of 40 x 30 pixels"),
    (with_person(bbox=[-3, 2, 3, 4]), "annotation 12: box .* lies outside its image"),
    (with_person(area=None), "annotation 12: area is missing: add it to the file, or set area_"),
    (with_person(area=0), "annotation 12: area is 0, expected more than 0"),
    (with_person(area=-3.5), "annotation 12: area is -3.5, expected more than 0"),
    (
        with_person(area=NAN),
        "annotation 12: area is nan, expected a finite number$",
    ),
    (with_person(area="big"), "annotation 12: area is 'big', expected a valid number"),
]


@pytest.mark.parametrize(("content", "message"), PEOPLE_REFUSED)
def test_a_person_that_contradicts_itself_is_refused_by_id(
    tmp_path: Path, content: Json, message: str
) -> None:
    with pytest.raises(PeopleError, match=message) as refusal:
        read(tmp_path, content)
    assert str(refusal.value).startswith(str(tmp_path / "people.json"))
    assert "\n" not in str(refusal.value)


def with_image(**fields: Any) -> Json:
    return changed(lambda content: content["images"][1].update(fields))


IMAGES_REFUSED = [
    (with_image(id=7), "image 7: id occurs twice, expected distinct ids"),
    (with_image(id="1"), "image '1': id is '1', expected a valid integer"),
    (with_image(id=HUGE), "image 1000+: id is 1000+, expected less than or equal"),
    (with_image(width=None), "image 1: width is None, expected a valid integer"),
    (with_image(height=None), "image 1: height is None, expected a valid integer"),
    (with_image(height=0), "image 1: height is 0, expected greater than 0"),
    (with_image(width=40.5), "image 1: width is 40.5, expected a valid integer"),
    (with_image(file_name=None), "image 1: file_name is None, expected a valid string"),
    (with_image(file_name="../secret.png"), "'../secret.png' leaves the image folder"),
    (with_image(file_name="/etc/passwd"), "'/etc/passwd' leaves the image folder"),
    (with_image(file_name="a\ud800"), "no file name can hold"),
]


@pytest.mark.parametrize(("content", "message"), IMAGES_REFUSED)
def test_an_image_record_that_cannot_be_is_refused(
    tmp_path: Path, content: Json, message: str
) -> None:
    with pytest.raises(PeopleError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image_id": 1, "score": 0.5}], "is a list, as COCO results are"),
        ([], "not the COCO layout: expected an object whose 'images' is a list"),
        ({"images": [], "annotations": [3], "categories": []}, "whose 'annotations' is a list"),
        (changed(lambda content: content.pop("categories")), "whose 'categories' is a list"),
        (changed(lambda content: content["categories"][0].pop("keypoints")), "no category lists"),
        (
            changed(lambda content: content["categories"][0].pop("id")),
            "'person': id is missing",
        ),
        (
            changed(lambda content: content["categories"][0]["keypoints"].remove("left_eye")),
            r"people\.json: keypoint 'right_eye' has no mirror",
        ),
        (
            changed(lambda content: content.update(annotations=content["annotations"][2::2])),
            r"people with labelled keypoints: of 2 annotations of category 'person' \(crowds: 1\)",
        ),
        (
            changed(lambda content: content.update(annotations=[])),
            "must hold people with labelled keypoints: of 0",
        ),
    ],
)
def test_a_file_that_is_no_keypoint_file_is_refused(
    tmp_path: Path, content: object, message: str
) -> None:
    with pytest.raises(PeopleError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"", b"[" * 100_000])
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "people.json").write_bytes(content)
    with pytest.raises(PeopleError, match=r"people\.json: not JSON: .*; give a COCO keypoint"):
        read_people(tmp_path / "people.json", None, PLAIN)


def test_a_missing_annotation_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PeopleError, match="cannot be read: No such file"):
        read_people(tmp_path / "people.json", None, PLAIN)


def test_the_first_of_several_problems_is_named_and_the_others_counted(tmp_path: Path) -> None:
    content = changed(lambda content: [row.pop("bbox") for row in content["annotations"]])
    with pytest.raises(
        PeopleError, match=r"annotation 30: bbox is missing \(and 4 more in this file\)$"
    ):
        read(tmp_path, content)


def test_only_images_with_a_person_must_exist(tmp_path: Path, image_folder: Path) -> None:
    empty = {"id": 3, "file_name": "nobody.png", "width": 9, "height": 9}
    content = changed(lambda content: content["images"].append(empty))
    assert len(read(tmp_path, content, folder=image_folder).image_id) == 3
    (image_folder / "one.png").unlink()
    with pytest.raises(PeopleError, match=r"image 'one\.png' is not in the folder"):
        read(tmp_path, content, folder=image_folder)
    assert read(tmp_path, content).num_instances == 3  # without a folder, no file is looked at


def test_an_image_of_another_size_is_refused(tmp_path: Path, image_folder: Path) -> None:
    Image.new("RGB", (30, 40)).save(image_folder / "one.png")
    with pytest.raises(
        PeopleError, match=r"image 'one\.png' is 30 x 40 pixels .* annotations have 40 x 30"
    ):
        read(tmp_path, document(), folder=image_folder)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path, image_folder: Path) -> None:
    (image_folder / "one.png").write_text("<html>")
    with pytest.raises(PeopleError, match=r"one\.png' cannot be read: cannot identify"):
        read(tmp_path, document(), folder=image_folder)
