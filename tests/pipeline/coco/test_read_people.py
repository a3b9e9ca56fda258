"""Laws of reading people from COCO JSON: order, ids, boxes, areas, categories and who counts."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.coco.annotation_columns import clip_boxes_to_images
from pipeline.coco.read_people import read_people
from pipeline.errors import ConfigError
from pipeline.settings import PeopleSettings, SkeletonSettings
from tests.support.coco_documents import (
    PLAIN,
    Json,
    annotation,
    changed,
    document,
    read,
    with_person,
)


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
