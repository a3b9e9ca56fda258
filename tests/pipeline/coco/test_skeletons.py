"""Laws of skeletons read from a keypoint category."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.cocoeval import Params
from pydantic import ValidationError

from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES, flip_indices_of_names, skeleton_of_category
from pipeline.errors import ConfigError, PeopleError
from pipeline.settings import SkeletonSettings

NOTHING_SET = SkeletonSettings()


def category_of(*names: str, **fields: Any) -> dict[str, Any]:
    return {"id": 1, "name": "person", "keypoints": list(names), **fields}


def test_coco_keypoints_have_the_sigmas_of_pycocotools() -> None:
    skeleton = skeleton_of_category(category_of(*COCO_KEYPOINT_NAMES), NOTHING_SET)
    np.testing.assert_allclose(skeleton.sigmas, Params("keypoints").kpt_oks_sigmas, rtol=1e-12)


def test_coco_keypoints_have_halves_that_part_the_body() -> None:
    skeleton = skeleton_of_category(category_of(*COCO_KEYPOINT_NAMES), NOTHING_SET)
    assert skeleton.upper_body == tuple(range(11))
    assert skeleton.lower_body == tuple(range(11, 17))


def test_settings_win_over_what_is_built_in() -> None:
    settings = SkeletonSettings(sigmas=(0.1,) * 17, upper_body=("nose",), lower_body=("left_hip",))
    skeleton = skeleton_of_category(category_of(*COCO_KEYPOINT_NAMES), settings)
    assert skeleton.sigmas == (0.1,) * 17
    assert (skeleton.upper_body, skeleton.lower_body) == ((0,), (11,))


def test_coco_names_in_another_order_have_nothing_built_in() -> None:
    skeleton = skeleton_of_category(category_of(*reversed(COCO_KEYPOINT_NAMES)), NOTHING_SET)
    assert (skeleton.sigmas, skeleton.upper_body, skeleton.lower_body) == ((), (), ())


def test_another_skeleton_takes_sigmas_and_halves_from_settings() -> None:
    settings = SkeletonSettings(sigmas=(0.1, 0.2, 0.3), upper_body=("head",), lower_body=("tail",))
    skeleton = skeleton_of_category(category_of("tail", "back", "head"), settings)
    assert skeleton.sigmas == (0.1, 0.2, 0.3)
    assert (skeleton.upper_body, skeleton.lower_body) == ((2,), (0,))


def test_edges_count_from_one_in_the_file_and_from_zero_here() -> None:
    skeleton = skeleton_of_category(
        category_of("a", "b", "c", skeleton=[[1, 2], [3, 1]]), NOTHING_SET
    )
    assert skeleton.edges == ((0, 1), (2, 0))


def test_a_category_without_edges_has_none() -> None:
    assert skeleton_of_category(category_of("a"), NOTHING_SET).edges == ()


@pytest.mark.parametrize(
    ("names", "flip_indices"),
    [
        (("nose", "left_eye", "right_eye"), (0, 2, 1)),
        (("eye_right", "nose", "eye_left"), (2, 1, 0)),
        (("l_only", "tail"), (0, 1)),
        (("Left Eye", "Right Eye"), (1, 0)),
        (("left-eye", "right-eye"), (1, 0)),
        (("LeftEye", "RightEye", "Nose"), (1, 0, 2)),
        (("eyeLeft", "eyeRight"), (1, 0)),
        (("lefteye", "righteye"), (1, 0)),
        (("LEFT_EYE", "RIGHT_EYE"), (1, 0)),
        (("front_left_paw", "front_right_paw"), (1, 0)),
        (("left_eye_right_corner", "right_eye_left_corner"), (1, 0)),
        (("left_bright_spot", "right_bright_spot"), (1, 0)),
        (("l_eye", "r_eye"), (1, 0)),
        (("L_Eye", "R_Eye"), (1, 0)),
        (("L.Eye", "R.Eye"), (1, 0)),
        (("L_F_Paw", "R_F_Paw", "L_B_Paw", "R_B_Paw"), (1, 0, 3, 2)),
        (("hand_l", "hand_r"), (1, 0)),
        (("LEye", "REye"), (1, 0)),
        (("EyeL", "EyeR"), (1, 0)),
        (("left_l_point", "right_l_point", "left_r_point", "right_r_point"), (1, 0, 3, 2)),
        (("lip", "rip", "Lip", "Rip", "LIP", "RIP"), (0, 1, 2, 3, 4, 5)),
        (("L1", "R1", "l", "r", "tail", "tair"), (0, 1, 2, 3, 4, 5)),
        (("r_only", "R.only", "onlyL", "RSole"), (0, 1, 2, 3)),
    ],
)
def test_names_that_differ_in_their_side_only_are_paired(
    names: tuple[str, ...], flip_indices: tuple[int, ...]
) -> None:
    assert flip_indices_of_names(names) == flip_indices


def test_given_pairs_win_over_names() -> None:
    settings = SkeletonSettings(flip_pairs=(("left_a", "b"), ("port", "starboard")))
    names = ("port", "left_a", "right_a", "starboard", "b", "left_only")
    assert skeleton_of_category(category_of(*names), settings).flip_indices == (3, 4, 2, 0, 1, 5)
    nothing = SkeletonSettings(flip_pairs=())
    assert skeleton_of_category(category_of(*names), nothing).flip_indices == tuple(range(6))


_NAME_PARTS = ("left", "Right", "LEFT", "l", "R", "r", "_", " ", ".", "Eye", "eye", "IP", "ip", "1")


@given(st.lists(st.lists(st.sampled_from(_NAME_PARTS), min_size=1).map("".join), unique=True))
def test_names_of_any_kind_are_paired_both_ways_or_refused(names: list[str]) -> None:
    try:
        flip_indices = flip_indices_of_names(names)
    except PeopleError:
        return
    assert [flip_indices[index] for index in flip_indices] == list(range(len(names)))


@given(
    st.permutations([*COCO_KEYPOINT_NAMES, "paw_left", "paw_right", "tail"]),
)
def test_mirroring_twice_changes_nothing(names: list[str]) -> None:
    flip_indices = np.array(flip_indices_of_names(names))
    np.testing.assert_array_equal(flip_indices[flip_indices], np.arange(len(names)))
    assert (flip_indices == np.arange(len(names))).sum() == 2  # nose and tail


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("left_eye", "nose"), "keypoint 'left_eye' has no mirror: expected .* 'right_eye'"),
        (("paw_right",), "keypoint 'paw_right' has no mirror: expected .* 'paw_left'"),
        (("Left Eye", "RightEye"), "keypoint 'Left Eye' has no mirror: expected .* 'Right Eye'"),
        (("LeftEye", "Nose"), "keypoint 'LeftEye' has no mirror: expected .* 'RightEye'"),
        (("L_Eye", "r_eye"), "keypoint 'L_Eye' has no mirror: expected .* 'R_Eye'"),
        (
            ("eyeleft", "eyeright"),
            "keypoint 'eyeleft' has a side that cannot be paired.*flip_pairs",
        ),
    ],
)
def test_a_side_without_its_twin_is_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(PeopleError, match=message):
        flip_indices_of_names(names)


@pytest.mark.parametrize(
    ("category", "message"),
    [
        ({"id": 1, "name": "person"}, "category 'person': keypoints is missing"),
        (category_of(), r"category 'person': keypoints is \[\], .* at least 1 item"),
        (category_of("a", "a"), "category 'person': names keypoint 'a' twice"),
        (category_of("a", ""), r"keypoints\[1\] is '', .* at least 1 character"),
        (
            category_of("a", "b", skeleton=[[0, 1]]),
            r"skeleton\[0\]\[0\] is 0, expected .* to 1",
        ),
        (category_of("a", "b", skeleton=[[1, 3]]), r"skeleton holds \[1, 3\], .* from 1 to 2"),
        (category_of("a", "b", skeleton=[[1]]), r"skeleton\[0\] is \[1\], .* at least 2 items"),
        (category_of("a", skeleton={"a": 1}), "skeleton is {'a': 1}, expected a valid list"),
        (category_of("a", id="1"), "category 'person': id is '1', expected a valid integer"),
    ],
)
def test_a_category_that_is_no_skeleton_is_refused(category: dict[str, Any], message: str) -> None:
    with pytest.raises(PeopleError, match=message):
        skeleton_of_category(category, NOTHING_SET)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigmas": (0.1,)}, "sigmas holds 1 number, but the annotations have 2"),
        ({"sigmas": ()}, "sigmas holds 0 numbers"),
        ({"upper_body": ("a",)}, "upper_body is set without lower_body"),
        ({"lower_body": ("a",)}, "lower_body is set without upper_body"),
        (
            {"upper_body": ("a",), "lower_body": ("knee",)},
            "'knee' that the annotations do not have",
        ),
        ({"upper_body": ("a",), "lower_body": ("a", "b")}, "name keypoint 'a' twice"),
        ({"flip_pairs": (("a", "c"),)}, "flip_pairs name a keypoint 'c' that .*: expected .* a, b"),
        ({"flip_pairs": (("a", "a"),)}, "name keypoint 'a' twice: a keypoint is in one pair"),
        ({"flip_pairs": (("a", "b"), ("b", "a"))}, "flip_pairs name keypoint 'a' twice"),
    ],
)
def test_settings_that_do_not_fit_the_keypoints_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        skeleton_of_category(category_of("a", "b"), SkeletonSettings(**settings))


@pytest.mark.parametrize("settings", [{"sigma": (0.1,)}, {"sigmas": (0.0,)}, {"sigmas": ("nan",)}])
def test_a_setting_that_means_nothing_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SkeletonSettings(**settings)


@pytest.mark.shared
def test_the_shared_people_have_the_coco_skeleton(shared_folder: Path) -> None:
    content = json.loads((shared_folder / "data/coco_sample/person_keypoints.json").read_text())
    skeleton = skeleton_of_category(content["categories"][0], NOTHING_SET)
    assert skeleton.keypoint_names == COCO_KEYPOINT_NAMES
    assert len(skeleton.edges) == 19
    assert skeleton.flip_indices == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
