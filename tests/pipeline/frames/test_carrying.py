"""Laws of carrying: what a teacher predicted of one crop, moved into another view of the person."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.frames.carrying import carry_heatmaps, carry_keypoints, known_cells
from pipeline.frames.geometry import (
    HEATMAP_FRAMES,
    Affine,
    apply,
    compose,
    crop_to_heatmap,
    invert,
    mirror_affine,
    resize_affine,
    view_to_crop,
)
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.settings import HeatmapFrame

FLIP = (0, 2, 1)
CROP, VIEW, HEATMAP = (256, 192), (128, 96), (64, 48)
# The teacher's crop: a box of 90 x 120 pixels about (200, 150), upright.
IMAGE_TO_CROP = view_to_crop(np.array([200.0, 150.0]), np.array([90.0, 120.0]), np.zeros(()), CROP)


def a_view(
    scale: float = 1.0,
    degrees: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    mirrored: bool = False,
) -> Affine:
    """Return image_to_view of a view about the same person."""
    centre = np.array([200.0, 150.0]) + shift
    size = scale * np.array([90.0, 120.0])
    affine = view_to_crop(centre, size, np.asarray(np.deg2rad(degrees)), VIEW)
    return compose(mirror_affine(VIEW[1]), affine) if mirrored else affine


VIEWS = {
    "plain": a_view(),
    "larger": a_view(scale=0.7),
    "smaller": a_view(scale=1.35),
    "turned": a_view(degrees=50),
    "shifted": a_view(shift=(12, -9)),
    "mirrored": a_view(mirrored=True),
    "all": a_view(1.2, -70, (-8, 10), mirrored=True),
}
PEOPLE = np.array([[[200.0, 150.0], [182.0, 131.0], [214.0, 171.0]]])
"""Keypoints of one person, image pixels: nose, left hand, right hand."""


def heat_of(
    keypoints: NDArray[np.float64],
    image_to_view: Affine,
    frame: HeatmapFrame,
    size: tuple[int, int],
) -> NDArray[np.float32]:
    """Return what a teacher draws that knows the truth: Gaussians about the moved keypoints.

    Of a mirrored view the person's left hand is drawn as its right one. The Gaussians have one
    width in the image, so that they move with the pixels as a network's maps do.
    """
    if np.linalg.det(image_to_view[:, :2]) < 0:
        keypoints = keypoints[:, FLIP]
    to_heatmap = compose(crop_to_heatmap(frame, size, HEATMAP), image_to_view)
    sigma = 4.0 * np.sqrt(abs(np.linalg.det(to_heatmap[:, :2])))
    return encode_keypoints(apply(to_heatmap, keypoints), HEATMAP, sigma)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("frame", HEATMAP_FRAMES)
def test_carried_equals_live_for_a_teacher_that_draws_the_truth(
    name: str, frame: HeatmapFrame
) -> None:
    """Bilinear interpolation is off by at most (h^2 / 8) max |f''| along each axis."""
    image_to_view = VIEWS[name]
    stored = heat_of(PEOPLE, IMAGE_TO_CROP, frame, CROP)
    live = heat_of(PEOPLE, image_to_view, frame, VIEW)
    carried = carry_heatmaps(
        stored,
        compose(image_to_view, invert(IMAGE_TO_CROP))[None],
        crop_to_heatmap(frame, CROP, HEATMAP),
        crop_to_heatmap(frame, VIEW, HEATMAP),
        HEATMAP,
        FLIP,
    )
    sigma = 4.0 * HEATMAP[1] / 90  # of the stored maps, in cells; max |f''| = 1 / sigma^2
    difference = np.abs(carried.heatmaps - live)[:, :, carried.is_known[0]]
    assert difference.max() < 2 / (8 * sigma**2) + 2e-3
    assert carried.is_known.mean() > 0.4
    assert live.max() > 0.9


@pytest.mark.parametrize("frame", HEATMAP_FRAMES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_the_teachers_own_crop_gets_its_own_heatmaps_back(
    frame: HeatmapFrame, dtype: type[np.generic]
) -> None:
    heatmaps = np.random.default_rng(0).uniform(0, 255, (2, 3, *HEATMAP)).astype(dtype)
    same = np.tile(np.eye(2, 3), (2, 1, 1))
    affine = crop_to_heatmap(frame, CROP, HEATMAP)
    carried = carry_heatmaps(heatmaps, same, affine, affine, HEATMAP, FLIP)
    assert carried.is_known.all()
    np.testing.assert_array_equal(carried.heatmaps, heatmaps.astype(carried.heatmaps.dtype))


def test_a_mirrored_crop_gets_mirrored_heatmaps_with_left_and_right_exchanged() -> None:
    heatmaps = np.random.default_rng(0).integers(0, 256, (1, 3, *HEATMAP)).astype(np.uint8)
    mirror = mirror_affine(CROP[1])[None]
    affine = crop_to_heatmap("half-pixel", CROP, HEATMAP)
    carried = carry_heatmaps(heatmaps, mirror, affine, affine, HEATMAP, FLIP)
    assert carried.is_known.all()
    np.testing.assert_array_equal(carried.heatmaps, heatmaps[:, list(FLIP), :, ::-1])


@pytest.mark.parametrize("name", VIEWS)
def test_keypoints_are_carried_exactly_and_back(name: str) -> None:
    crop_to_view = compose(VIEWS[name], invert(IMAGE_TO_CROP))[None]
    in_crop = apply(IMAGE_TO_CROP, PEOPLE)
    expected = apply(VIEWS[name], PEOPLE)
    if name in ("mirrored", "all"):
        expected = expected[:, FLIP]
    carried = carry_keypoints(in_crop, crop_to_view, FLIP)
    np.testing.assert_allclose(carried, expected, atol=1e-9)
    np.testing.assert_allclose(carry_keypoints(carried, invert(crop_to_view), FLIP), in_crop)


def test_people_of_a_batch_are_carried_each_by_its_own_view() -> None:
    heatmaps = np.random.default_rng(1).integers(0, 256, (3, 3, *HEATMAP)).astype(np.uint8)
    moved = np.stack(
        [compose(VIEWS[name], invert(IMAGE_TO_CROP)) for name in ("turned", "mirrored", "all")]
    )
    frames = (
        crop_to_heatmap("msra", CROP, HEATMAP),
        crop_to_heatmap("msra", VIEW, HEATMAP),
        HEATMAP,
        FLIP,
    )
    together = carry_heatmaps(heatmaps, moved, *frames)
    for row in range(3):
        alone = carry_heatmaps(heatmaps[row : row + 1], moved[row : row + 1], *frames)
        np.testing.assert_array_equal(alone.heatmaps[0], together.heatmaps[row])
        np.testing.assert_array_equal(alone.is_known[0], together.is_known[row])


def test_only_cells_between_the_centres_of_stored_cells_are_known() -> None:
    """A map of 4 x 6 cells moved by (2, 1) leaves two columns and one row unknown."""
    moved = np.array([[[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]])
    known = known_cells(moved, (4, 6), (4, 6))[0]
    expected = np.zeros((4, 6), np.bool_)
    expected[1:, 2:] = True
    np.testing.assert_array_equal(known, expected)
    half = known_cells(moved + np.array([[0, 0, 0.5], [0, 0, 0]]), (4, 6), (4, 6))[0]
    expected[:, 2] = False
    np.testing.assert_array_equal(half, expected)


def test_unknown_cells_hold_no_heat_that_a_loss_could_take_for_known() -> None:
    heatmaps = np.full((1, 3, *HEATMAP), 200, np.uint8)
    moved = compose(VIEWS["smaller"], invert(IMAGE_TO_CROP))[None]
    carried = carry_heatmaps(
        heatmaps,
        moved,
        crop_to_heatmap("udp", CROP, HEATMAP),
        crop_to_heatmap("udp", VIEW, HEATMAP),
        HEATMAP,
        FLIP,
    )
    assert 0.4 < carried.is_known.mean() < 0.7
    assert (carried.heatmaps == np.where(carried.is_known[:, None], 200, 0)).all()


def test_maps_of_another_size_lie_where_the_cells_are() -> None:
    """A map at twice the cells, resized: each of its peaks is found at the same crop pixel."""
    affine = crop_to_heatmap("half-pixel", CROP, HEATMAP)
    large = (128, 96)
    to_large = crop_to_heatmap("half-pixel", CROP, large)
    stored = heat_of(PEOPLE, IMAGE_TO_CROP, "half-pixel", CROP)
    carried = carry_heatmaps(stored, np.eye(2, 3)[None], affine, to_large, large, FLIP)
    points = apply(to_large, apply(IMAGE_TO_CROP, PEOPLE))[0]
    for heatmap, (x, y) in zip(carried.heatmaps[0], points, strict=True):
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        assert abs(column - x) <= 1.5
        assert abs(row - y) <= 1.5
    np.testing.assert_allclose(compose(resize_affine(HEATMAP, large), affine), to_large)
