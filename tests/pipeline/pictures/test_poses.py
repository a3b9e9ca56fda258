"""Pictures put things where their frames say, in the colour of the person's side."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.coco.image_files import decode_image
from pipeline.coco.people import Skeleton
from pipeline.frames.geometry import HEATMAP_FRAMES, apply, crop_to_heatmap
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.pictures.poses import (
    CENTRE_COLOUR,
    LEFT_COLOUR,
    RIGHT_COLOUR,
    draw_pose,
    keypoint_colours,
    overlay_heatmaps,
    ring_keypoints,
    write_png,
)
from pipeline.settings import HeatmapFrame

SKELETON = Skeleton(
    keypoint_names=("nose", "left_wrist", "right_wrist", "ankle_left", "ankle_right"),
    edges=((0, 1), (1, 3), (1, 2)),
    flip_indices=(0, 2, 1, 4, 3),
    sigmas=(),
)
POINTS = np.array([[90.0, 40.0], [40.0, 90.0], [150.0, 95.0], [45.0, 200.0], [140.0, 210.0]])
EVERYONE = np.ones(5, bool)
GREY = np.full((256, 192, 3), 100, np.uint8)


def changed(picture: NDArray[np.uint8], before: NDArray[np.uint8] = GREY) -> NDArray[np.bool_]:
    return np.asarray((picture != before).any(axis=-1))


def has_colour(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((picture == np.array(colour)).all(axis=-1))


def centroid(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


def test_a_keypoint_has_the_colour_of_the_side_its_name_says() -> None:
    expected = [CENTRE_COLOUR, LEFT_COLOUR, RIGHT_COLOUR, LEFT_COLOUR, RIGHT_COLOUR]
    assert keypoint_colours(SKELETON).tolist() == [list(colour) for colour in expected]


@pytest.mark.parametrize("keypoint", range(5))
def test_a_joint_is_a_dot_of_its_colour_about_its_point(keypoint: int) -> None:
    alone = np.arange(5) == keypoint
    picture = draw_pose(GREY, POINTS, alone, SKELETON)
    x, y = POINTS[keypoint].astype(int)
    assert picture[y, x].tolist() == keypoint_colours(SKELETON)[keypoint].tolist()
    assert np.abs(centroid(changed(picture)) - POINTS[keypoint]).max() < 0.1
    ringed = ring_keypoints(GREY, POINTS, alone, SKELETON)
    assert np.abs(centroid(changed(ringed)) - POINTS[keypoint]).max() < 0.1
    assert ringed[y, x].tolist() == [100, 100, 100], "a ring leaves its middle free"


@pytest.mark.parametrize("draw", [draw_pose, ring_keypoints])
def test_a_point_between_pixels_is_drawn_between_them(draw: object) -> None:
    assert callable(draw)
    for offset in (0.25, 0.5, 0.75):
        moved = POINTS + offset
        picture = draw(GREY, moved, np.arange(5) == 2, SKELETON).astype(float)
        weight = np.abs(picture - GREY).sum(axis=-1)
        rows, columns = np.mgrid[:256, :192]
        found = [(weight * axis).sum() / weight.sum() for axis in (columns, rows)]
        np.testing.assert_allclose(found, moved[2], atol=0.15)


def test_a_limb_has_its_side_s_colour_and_one_across_the_body_the_middle_s() -> None:
    picture = draw_pose(GREY, POINTS, EVERYONE, SKELETON)
    for (start, end), colour in zip(
        SKELETON.edges, (LEFT_COLOUR, LEFT_COLOUR, CENTRE_COLOUR), strict=True
    ):
        x, y = np.rint((POINTS[start] + POINTS[end]) / 2).astype(int)
        assert has_colour(picture[y - 1 : y + 2, x - 1 : x + 2], colour).any(), (start, end)


def test_a_keypoint_that_is_not_visible_or_not_finite_is_left_out_with_its_limbs() -> None:
    points = POINTS.copy()
    points[1] = np.nan
    visible = np.array([True, True, False, False, True])
    picture = draw_pose(GREY, points, visible, SKELETON)
    expected = draw_pose(GREY, POINTS, np.array([True, False, False, False, True]), SKELETON)
    np.testing.assert_array_equal(picture, expected)
    assert not has_colour(picture, LEFT_COLOUR).any()
    assert not changed(ring_keypoints(GREY, points, ~EVERYONE, SKELETON)).any()


def test_points_far_outside_the_picture_are_harmless_and_the_crop_is_not_changed() -> None:
    crop = GREY.copy()
    draw_pose(crop, np.full((5, 2), 1e30), EVERYONE, SKELETON)
    draw_pose(crop, POINTS, EVERYONE, SKELETON)
    ring_keypoints(crop, POINTS, EVERYONE, SKELETON)
    overlay_heatmaps(crop, np.ones((1, 64, 48)), np.eye(2, 3))
    np.testing.assert_array_equal(crop, GREY)


@pytest.mark.parametrize("draw", [draw_pose, ring_keypoints])
def test_marks_grow_with_the_picture(draw: object) -> None:
    assert callable(draw)
    shares = []
    for scale in (3, 6):
        crop = np.full((256 * scale, 192 * scale, 3), 100, np.uint8)
        marked = draw(crop, POINTS * scale, EVERYONE, SKELETON)
        shares.append(changed(marked, crop).mean())
    assert shares[1] == pytest.approx(shares[0], rel=0.15)


@pytest.mark.parametrize("frame", HEATMAP_FRAMES)
@pytest.mark.parametrize("point", [(60.0, 41.0), (121.3, 170.7), (30.0, 222.0)])
def test_the_hottest_pixel_lies_where_the_frame_says(
    frame: HeatmapFrame, point: tuple[float, float]
) -> None:
    affine = crop_to_heatmap(frame, (256, 192), (64, 48))
    heatmaps = encode_keypoints(apply(affine, [point]), (64, 48))
    picture = overlay_heatmaps(np.zeros_like(GREY), heatmaps, affine, (255, 255, 255))
    rows, columns = np.nonzero(picture[..., 0] >= picture[..., 0].max() - 1)
    np.testing.assert_allclose([columns.mean(), rows.mean()], point, atol=0.6)
    y, x = np.unravel_index(picture[..., 0].argmax(), (256, 192))
    assert max(abs(x - point[0]), abs(y - point[1])) <= 1


def test_heat_is_laid_over_in_each_keypoint_s_colour_and_the_rest_is_only_dimmed() -> None:
    affine = crop_to_heatmap("half-pixel", (256, 192), (64, 48))
    heatmaps = encode_keypoints(apply(affine, POINTS), (64, 48))
    picture = overlay_heatmaps(GREY, heatmaps, affine, keypoint_colours(SKELETON))
    for point, colour in zip(POINTS.astype(int), keypoint_colours(SKELETON), strict=True):
        assert np.abs(picture[point[1], point[0]].astype(int) - colour).max() < 12
    assert 0 < picture[250, 5, 0] < 100
    assert (picture[250, 5] == picture[250, 5, 0]).all()


def test_more_heat_is_never_fainter_and_heat_out_of_range_is_cut() -> None:
    heatmaps = np.array([[[-3.0, 0.0, 0.3, 0.6, 1.0, 7.0]]]).repeat(2, axis=1)
    crop = np.zeros((2, 6, 3), np.uint8)
    row = overlay_heatmaps(crop, heatmaps, np.eye(2, 3), (200, 200, 200))[0, :, 0]
    assert row.tolist() == [0, 0, 60, 120, 200, 200]


def test_a_png_reads_back_as_it_was_written(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_png(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(decode_image(tmp_path / "new" / "a.png"), image)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
