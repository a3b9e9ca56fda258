"""Affine laws: chains are exact, boxes map to crops by area, frames differ as published."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.frames.geometry import (
    HEATMAP_FRAMES,
    apply,
    box_to_crop,
    compose,
    crop_to_heatmap,
    invert,
    is_mirroring,
    mirror_affine,
    mirror_gap,
    resize_affine,
    view_to_crop,
)
from pipeline.settings import HeatmapFrame

CROP_HW, HEATMAP_HW = (256, 192), (64, 48)
coordinates = st.floats(-2000, 2000)
sizes = st.floats(1, 2000)


@given(
    st.tuples(coordinates, coordinates),
    st.tuples(coordinates, coordinates),
    sizes,
    st.floats(-np.pi, np.pi),
    st.booleans(),
    st.sampled_from(HEATMAP_FRAMES),
)
def test_image_to_crop_to_heatmap_and_back_is_exact(
    point: tuple[float, float],
    centre: tuple[float, float],
    width: float,
    rotation: float,
    mirrored: bool,
    frame: HeatmapFrame,
) -> None:
    size = np.array([width, width * 4 / 3])
    affine = view_to_crop(np.array(centre), size, np.asarray(rotation), CROP_HW)
    if mirrored:
        affine = compose(mirror_affine(CROP_HW[1]), affine)
    to_heatmap = crop_to_heatmap(frame, CROP_HW, HEATMAP_HW)
    there = apply(to_heatmap, apply(affine, [point]))
    back = apply(invert(affine), apply(invert(to_heatmap), there))
    assert np.abs(back - point).max() <= 1e-6
    assert np.abs(apply(invert(compose(to_heatmap, affine)), there) - point).max() <= 1e-6


@given(st.floats(0, 500), st.floats(0, 500), st.floats(1, 500), st.floats(1, 500))
def test_the_padded_box_fills_the_crop_about_its_centre(
    x: float, y: float, width: float, height: float
) -> None:
    affine = box_to_crop([x, y, width, height], CROP_HW, padding=1.25)
    crop = apply(affine, [[x, y], [x + width, y + height]])
    assert np.allclose(crop.mean(axis=0), [96, 128])
    span = crop[1] - crop[0]
    assert np.isclose(max(span[0] / 192, span[1] / 256), 1 / 1.25)
    assert np.isclose(span[0] * height, span[1] * width)


def test_a_point_has_one_place_whichever_student_size_it_goes_through() -> None:
    small = resize_affine((256, 192), (128, 96))
    frame = resize_affine((256, 192), (64, 48))
    assert np.allclose(compose(resize_affine((128, 96), (64, 48)), small), frame)


def test_a_student_crop_shows_what_the_teacher_crop_shows_to_a_quarter_of_a_pixel() -> None:
    box = [31.0, 47.0, 80.0, 91.0]
    resized = compose(resize_affine(CROP_HW, (128, 96)), box_to_crop(box, CROP_HW))
    assert np.allclose(resized[:, :2], box_to_crop(box, (128, 96))[:, :2])
    assert np.allclose(resized[:, 2], box_to_crop(box, (128, 96))[:, 2] - 0.25)


def test_mirroring_is_told_by_the_determinant() -> None:
    affine = box_to_crop([0, 0, 10, 10], CROP_HW)
    pair = np.stack([affine, compose(mirror_affine(192), affine)])
    assert is_mirroring(pair).tolist() == [False, True]


@pytest.mark.parametrize(
    ("frame", "point", "gap"),
    [("msra", 25.0, 0.75), ("half-pixel", 24.625, 0.0), ("udp", 100 * 47 / 191, 0.0)],
)
def test_heatmap_frames_are_as_published(frame: HeatmapFrame, point: float, gap: float) -> None:
    affine = crop_to_heatmap(frame, CROP_HW, HEATMAP_HW)
    assert apply(affine, [[100.0, 0.0]])[0, 0] == pytest.approx(point)
    assert mirror_gap(affine, 192, 48) == pytest.approx(gap, abs=1e-12)


def test_an_unknown_frame_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'centre'; expected one of msra, half-pixel, udp"):
        crop_to_heatmap("centre", CROP_HW, HEATMAP_HW)  # type: ignore[arg-type]
