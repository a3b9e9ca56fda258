"""Laws of reading people from COCO JSON, and every refusal with its message."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.coco.people import People
from pipeline.coco.read_people import PeopleSettings, clip_boxes_to_images, read_people
from pipeline.coco.skeletons import SkeletonSettings
from pipeline.errors import ConfigError, PeopleError

Json = dict[str, Any]
PLAIN = PeopleSettings()


def annotation(annotation_id: int, image_id: int = 1, **fields: Any) -> Json:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 2,
        "bbox": [10.0, 5.0, 20.0, 10.0],
        "area": 120.0,
        "keypoints": [12, 7, 2, 20.5, 9, 1, 0, 0, 0],
        **fields,
    }


def document() -> Json:
    """Two images, three people, a crowd and a person without keypoints; nothing in order."""
    nobody: Json = {"num_keypoints": 0, "keypoints": [0] * 9}
    return {
        "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"]}],
        "images": [
            {"id": 7, "file_name": "b/two.png", "width": 64, "height": 48},
            {"id": 1, "file_name": "one.png", "width": 40, "height": 30},
        ],
        "annotations": [
            annotation(30, image_id=7),
            annotation(12),
            annotation(11, **nobody),
            annotation(10),
            annotation(9, iscrowd=1, **nobody),
        ],
    }


def read(
    tmp_path: Path, content: object, settings: PeopleSettings = PLAIN, folder: Path | None = None
) -> People:
    path = tmp_path / "people.json"
    path.write_text(json.dumps(content))
    return read_people(path, folder, settings)


def changed(change: Callable[[Json], object]) -> Json:
    content = document()
    change(content)
    return content


def with_person(**fields: Any) -> Json:
    """Change the annotation 12; a field of None is left out."""
    content = document()
    person = content["annotations"][1] | fields
    content["annotations"][1] = {name: value for name, value in person.items() if value is not None}
    return content


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    (tmp_path / "images/b").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "images/b/two.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "images/one.png")
    return tmp_path / "images"


def test_people_come_by_image_id_then_annotation_id(tmp_path: Path, image_folder: Path) -> None:
    people = read(tmp_path, document(), folder=image_folder)
    assert people.image_id.tolist() == [1, 7]
    assert people.image_name == ("one.png", "b/two.png")
    assert people.image_size_hw.tolist() == [[30, 40], [48, 64]]
    assert people.instance_id.tolist() == [10, 12, 30]
    assert people.image_index.tolist() == [0, 0, 1]
    assert people.category_id == 1


def test_the_order_of_the_file_changes_nothing(tmp_path: Path) -> None:
    def reverse(content: Json) -> None:
        content["images"].reverse()
        content["annotations"].reverse()

    plain, reversed_people = read(tmp_path, document()), read(tmp_path, changed(reverse))
    np.testing.assert_equal(vars(reversed_people.ignored), vars(plain.ignored))
    for name in ("image_name", "instance_id", "image_index", "bbox_xywh", "keypoints"):
        np.testing.assert_array_equal(getattr(reversed_people, name), getattr(plain, name))


def test_crowds_and_people_without_keypoints_are_ignore_regions(tmp_path: Path) -> None:
    box = [-5.0, 5.0, 20.0, 0.0]
    ignored = read(
        tmp_path, changed(lambda content: content["annotations"][4].update(bbox=box))
    ).ignored
    assert ignored.annotation_id.tolist() == [9, 11]
    assert ignored.is_crowd.tolist() == [True, False]
    assert ignored.num_keypoints.tolist() == [0, 0]
    assert ignored.bbox_xywh[0].tolist() == box  # as annotated, even empty


def test_unlabelled_keypoints_have_no_place(tmp_path: Path) -> None:
    people = read(tmp_path, with_person(keypoints=[12, 7, 2, 20.5, 9, 1, 33, 44, 0]))
    assert people.keypoints.dtype == np.float32
    np.testing.assert_array_equal(
        people.keypoints[1], [[12, 7, 2], [20.5, 9, 1], [np.nan, np.nan, 0]]
    )
    assert people.is_labelled[1].tolist() == [True, True, False]


def test_a_missing_keypoint_count_is_counted(tmp_path: Path) -> None:
    content = changed(lambda content: [row.pop("num_keypoints") for row in content["annotations"]])
    assert read(tmp_path, content).instance_id.tolist() == [10, 12, 30]
    assert read(tmp_path, content).ignored.num_keypoints.tolist() == [0, 0]


def test_an_annotation_without_keypoints_field_is_ignored(tmp_path: Path) -> None:
    people = read(tmp_path, with_person(keypoints=None, num_keypoints=None))
    assert 12 in people.ignored.annotation_id


def test_boxes_are_clipped_to_the_image_unless_told_otherwise(tmp_path: Path) -> None:
    content = with_person(bbox=[-5, 20, 100, 25.5])
    assert read(tmp_path, content).bbox_xywh[1].tolist() == [0, 20, 40, 10]
    unclipped = read(tmp_path, content, PeopleSettings(clip_boxes=False))
    assert unclipped.bbox_xywh[1].tolist() == [-5, 20, 100, 25.5]


coordinates = st.floats(-200, 200, allow_subnormal=False)
extents = st.floats(0.01, 200)


@given(coordinates, coordinates, extents, extents)
def test_a_clipped_box_is_what_both_the_box_and_the_image_cover(
    x: float, y: float, width: float, height: float
) -> None:
    box, size_hw = np.array([[x, y, width, height]]), np.array([[30, 40]])
    left, top, clipped_width, clipped_height = clip_boxes_to_images(box, size_hw)[0]
    if clipped_width <= 0 or clipped_height <= 0:
        assert x >= 40 or y >= 30 or x + width <= 0 or y + height <= 0
        return
    assert (left, top) == (max(x, 0), max(y, 0))
    assert left + clipped_width == pytest.approx(min(x + width, 40))
    assert top + clipped_height == pytest.approx(min(y + height, 30))
    again = clip_boxes_to_images(np.array([[left, top, clipped_width, clipped_height]]), size_hw)
    np.testing.assert_allclose(again[0], [left, top, clipped_width, clipped_height], atol=1e-12)


@given(st.floats(0, 20), st.floats(0, 15), st.floats(0.01, 20), st.floats(0.01, 15))
def test_a_box_inside_its_image_is_kept_bit_for_bit(
    x: float, y: float, width: float, height: float
) -> None:
    box = np.array([[x, y, width, height]])
    np.testing.assert_array_equal(clip_boxes_to_images(box, np.array([[30, 40]])), box)


def test_a_missing_area_is_a_fraction_of_the_annotated_box(tmp_path: Path) -> None:
    people = read(tmp_path, with_person(area=None), PeopleSettings(area_fraction=0.5))
    assert people.area.tolist() == [120, 100, 120]


def test_an_annotation_without_id_gets_a_stable_one(tmp_path: Path) -> None:
    plain = read(tmp_path, with_person(id=None))
    derived = next(value for value in plain.instance_id.tolist() if value not in (10, 30))
    content = b"one.png\0" + struct.pack("<4d", 10, 5, 20, 10)
    first_bytes = hashlib.sha256(content).digest()[:8]
    assert derived == struct.unpack(">Q", first_bytes)[0] % 2**63
    moved = read(tmp_path, with_person(id=None, bbox=[10, 5, 20, 11]))
    assert derived not in moved.instance_id


def test_annotations_without_id_that_look_alike_are_refused(tmp_path: Path) -> None:
    content = changed(lambda content: [row.pop("id") for row in content["annotations"][1:3]])
    with pytest.raises(PeopleError, match="annotation without id in image 1 occurs twice"):
        read(tmp_path, content)


def test_the_category_is_the_one_with_keypoints(tmp_path: Path) -> None:
    content = changed(lambda content: content["categories"].insert(0, {"id": 2, "name": "dog"}))
    content["annotations"].append(annotation(50, category_id=2, keypoints="of a dog"))
    assert read(tmp_path, content).instance_id.tolist() == [10, 12, 30]


def test_of_several_categories_the_named_one_is_read_else_person(tmp_path: Path) -> None:
    horse = {"id": 5, "name": "horse", "keypoints": ["tail", "head"]}
    content = changed(lambda content: content["categories"].append(horse))
    content["annotations"].append(annotation(50, category_id=5, keypoints=[1, 2, 2, 3, 4, 2]))
    assert read(tmp_path, content).category_id == 1
    horses = read(tmp_path, content, PeopleSettings(category="horse"))
    assert (horses.category_id, horses.instance_id.tolist()) == (5, [50])
    content["categories"][0]["name"] = "human"
    with pytest.raises(ConfigError, match=r"2 categories fit \(human, horse\): set category"):
        read(tmp_path, content)
    with pytest.raises(ConfigError, match="no category 'cow': expected one of human, horse"):
        read(tmp_path, content, PeopleSettings(category="cow"))


def test_skeleton_settings_reach_the_skeleton(tmp_path: Path) -> None:
    settings = PeopleSettings(skeleton=SkeletonSettings(sigmas=(0.1, 0.2, 0.3)))
    assert read(tmp_path, document(), settings).skeleton.sigmas == (0.1, 0.2, 0.3)


NAN, INF = float("nan"), float("inf")
HUGE = 10**400
PEOPLE_REFUSED = [
    (with_person(image_id=99), "annotation 12: image_id is 99, which is no image"),
    (with_person(image_id=True), "annotation 12: image_id is True"),
    (with_person(image_id=None), "annotation 12: image_id is None"),
    (with_person(category_id=4), "annotation 12: category_id is 4, expected one of"),
    (with_person(id=10), "annotation 10 occurs twice"),
    (with_person(id=True), "annotation True: id must be a whole number within 2"),
    (with_person(id="x"), "annotation 'x': id must be a whole number"),
    (with_person(id=2**53 + 1), "annotation 9007199254740993: id must be a whole number"),
    (with_person(id=HUGE), "annotation 1000+: id must be a whole number"),
    (with_person(keypoints=[1, 2, 2]), "annotation 12: keypoints is not 9 numbers long: got 3"),
    (with_person(keypoints="none"), "keypoints is not 9 numbers long: got 'none'"),
    (with_person(keypoints=None), "num_keypoints is 2, but 0 keypoints have visibility"),
    (with_person(keypoints=["1"] * 9), "keypoints holds something that is not a number"),
    (with_person(keypoints=[NAN, 2, 2] * 3), "annotation 12: keypoints holds nan, expected finite"),
    (with_person(keypoints=[1, INF, 2] * 3), "annotation 12: keypoints holds inf"),
    (with_person(keypoints=[1, HUGE, 2] * 3), "annotation 12: keypoints holds inf"),
    (with_person(keypoints=[1, 2, 3] * 3), "annotation 12: a keypoint's visibility is 3, expected"),
    (with_person(keypoints=[1, 2, 0.5] * 3), "visibility is 0.5, expected 0, 1 or 2"),
    (with_person(num_keypoints=0), "num_keypoints is 0, but 2 keypoints have visibility"),
    (with_person(num_keypoints=HUGE), "annotation 12: num_keypoints is 1000+"),
    (with_person(iscrowd=2), "annotation 12: iscrowd is 2, expected 0 or 1"),
    (with_person(bbox=None), "annotation 12: bbox is missing"),
    (with_person(bbox=[1, 2, 3]), "annotation 12: bbox is not 4 numbers long: got 3"),
    (with_person(bbox=[1, NAN, 3, 4]), "annotation 12: bbox holds nan, expected finite"),
    (with_person(bbox=[1, 2, 0, 4]), r"annotation 12: box \[1.0, 2.0, 0.0, 4.0\] is empty"),
    (with_person(bbox=[1, 2, 3, -4]), "annotation 12: box .* is empty: expected x, y, width"),
    (with_person(bbox=[40, 2, 3, 4]), "annotation 12: box .* outside its image of 40 x 30 pixels"),
    (with_person(bbox=[-3, 2, 3, 4]), "annotation 12: box .* lies outside its image"),
    (with_person(area=None), "annotation 12 lacks area: add it to the file, or set area_fraction"),
    (with_person(area=0), "annotation 12: area is 0, expected more than 0"),
    (with_person(area=-3.5), "annotation 12: area is -3.5, expected more than 0"),
    (with_person(area=NAN), r"annotation 12: area is nan, expected a finite number$"),
    (with_person(area="big"), "annotation 12: area is 'big', expected a finite number"),
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
    (with_image(id=7), "image id 7 occurs twice"),
    (with_image(id="1"), "image '1': id must be a whole number"),
    (with_image(id=HUGE), "image 1000+: id must be a whole number"),
    (with_image(width=None), "image 1 lacks width: expected the image's size"),
    (with_image(height=None), "image 1 lacks height"),
    (with_image(height=0), "image 1: height is 0, expected whole pixels"),
    (with_image(width=40.5), "image 1: width is 40.5, expected whole pixels"),
    (with_image(file_name=None), "image 1 lacks file_name"),
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
        ([], "not the COCO layout: expected an object whose 'images' is a list"),
        ({"images": [], "annotations": [3], "categories": []}, "whose 'annotations' is a list"),
        (changed(lambda content: content.pop("categories")), "whose 'categories' is a list"),
        (changed(lambda content: content["categories"][0].pop("keypoints")), "no category lists"),
        (changed(lambda content: content["categories"][0].pop("id")), "'person' lacks a whole id"),
        (
            changed(lambda content: content["categories"][0]["keypoints"].remove("left_eye")),
            r"people\.json: keypoint 'right_eye' has no mirror",
        ),
        (
            changed(lambda content: content.update(annotations=content["annotations"][2::2])),
            "nobody to learn from: of 2 annotations of category 'person', 1 are crowds",
        ),
        (changed(lambda content: content.update(annotations=[])), "nobody to learn from: of 0"),
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
    with pytest.raises(PeopleError, match=r"people\.json: not JSON"):
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
        PeopleError, match=r"image 'one\.png' is 30 x 40 pixels .* annotations say 40 x 30"
    ):
        read(tmp_path, document(), folder=image_folder)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path, image_folder: Path) -> None:
    (image_folder / "one.png").write_text("<html>")
    with pytest.raises(PeopleError, match=r"one\.png' cannot be read: cannot identify"):
        read(tmp_path, document(), folder=image_folder)


@pytest.mark.shared
def test_the_coco_sample_is_read_whole(shared_folder: Path) -> None:
    folder = shared_folder / "data/coco_sample"
    people = read_people(folder / "person_keypoints.json", folder / "images", PLAIN)
    assert (people.num_instances, len(people.image_id)) == (94, 42)
    assert len(np.unique(people.image_index)) == 34
    assert (len(people.ignored.annotation_id), people.ignored.is_crowd.sum()) == (86, 5)
    assert people.is_labelled.sum() == 905


@pytest.mark.shared
def test_the_lspet_validation_people_are_read_whole(shared_folder: Path) -> None:
    folder = shared_folder / "data/lspet"
    people = read_people(folder / "annotations/val.json", folder / "images", PLAIN)
    assert (people.num_instances, len(people.ignored.annotation_id)) == (500, 0)
    assert people.is_labelled.sum() == 5284
