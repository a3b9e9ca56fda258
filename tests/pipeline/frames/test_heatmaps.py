"""Encoding and decoding are inverse to a stated part of a cell; mirroring undoes a mirror."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.frames.geometry import apply, crop_to_heatmap, mirror_affine
from pipeline.frames.heatmaps import decode_heatmaps, encode_keypoints, mirror_heatmaps
from pipeline.settings import Decoding, HeatmapFrame

SIZE_HW = (64, 48)


@given(st.floats(5, 42), st.floats(5, 58), st.floats(0.05, 3.0))
def test_dark_finds_a_gaussian_of_any_height_within_a_twentieth_of_a_cell(
    x: float, y: float, peak: float
) -> None:
    """Nearer than five cells to the border the blur meets the zeros outside."""
    heatmaps = np.float32(peak) * encode_keypoints([[[x, y]]], SIZE_HW)
    points, peaks = decode_heatmaps(heatmaps, "dark")
    assert np.abs(points[0, 0] - [x, y]).max() <= 0.05
    assert peaks[0, 0] == heatmaps.max()


@pytest.mark.parametrize(("method", "bound"), [("argmax", 0.5), ("quarter", 0.25)])
def test_the_coarser_decodings_are_within_half_and_quarter_of_a_cell(
    method: Decoding, bound: float
) -> None:
    points = np.random.default_rng(0).uniform([2, 2], [45, 61], (1, 200, 2))
    decoded, _ = decode_heatmaps(encode_keypoints(points, SIZE_HW), method)
    assert np.abs(decoded - points).max() <= bound + 1e-6


@pytest.mark.parametrize("method", ["argmax", "quarter", "dark"])
def test_a_map_decodes_the_same_alone_and_in_a_batch(method: Decoding) -> None:
    maps = np.random.default_rng(0).random((5, 3, *SIZE_HW), np.float32)
    together, peaks = decode_heatmaps(maps, method)
    for row in range(5):
        alone, peak = decode_heatmaps(maps[row : row + 1], method)
        assert np.array_equal(alone[0], together[row])
        assert np.array_equal(peak[0], peaks[row])


@pytest.mark.parametrize("cell", [(0, 0), (63, 47), (0, 20), (1, 1)])
def test_a_peak_at_the_border_stays_within_one_cell(cell: tuple[int, int]) -> None:
    maps = np.zeros((1, 1, *SIZE_HW), np.float32)
    maps[0, 0, cell[0], cell[1]] = 1
    for method in ("quarter", "dark"):
        points, _ = decode_heatmaps(maps, method)
        assert np.abs(points[0, 0] - [cell[1], cell[0]]).max() <= 1


def test_an_empty_map_decodes_to_a_finite_point_of_no_confidence() -> None:
    points, peaks = decode_heatmaps(np.zeros((1, 2, *SIZE_HW), np.float32))
    assert np.isfinite(points).all()
    assert (peaks == 0).all()


def test_a_point_that_is_nan_gives_an_empty_map() -> None:
    assert (encode_keypoints([[[np.nan, np.nan]]], SIZE_HW) == 0).all()


@pytest.mark.parametrize(("frame", "shift"), [("msra", 1), ("half-pixel", 0), ("udp", 0)])
def test_a_mirrored_back_map_lies_where_the_frame_says(frame: HeatmapFrame, shift: int) -> None:
    """A perfect teacher's map of the mirrored crop lands 1/4 of a cell off (msra) or on it."""
    affine = crop_to_heatmap(frame, (256, 192), SIZE_HW)
    crop_points = np.array([[[60.0, 100.0], [120.0, 40.0]]])
    mirrored_points = apply(mirror_affine(192), crop_points)[:, [1, 0]]  # left and right swap
    twin = encode_keypoints(apply(affine, mirrored_points), SIZE_HW)
    back = mirror_heatmaps(twin, flip_indices=(1, 0), shift=shift)
    points, _ = decode_heatmaps(back)
    expected = apply(affine, crop_points)
    residue = 0.25 if frame == "msra" else 0.0
    assert np.abs(points[..., 0] - expected[..., 0] - residue).max() <= 0.02
    assert np.abs(points[..., 1] - expected[..., 1]).max() <= 0.02


def test_mirroring_twice_is_nothing() -> None:
    maps = np.random.default_rng(0).random((2, 3, 8, 6), np.float32)
    twice = mirror_heatmaps(mirror_heatmaps(maps, (0, 2, 1)), (0, 2, 1))
    assert np.array_equal(twice, maps)


def test_an_unknown_decoding_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'udp'; expected one of dark, quarter, argmax"):
        decode_heatmaps(np.zeros((1, 1, 8, 6), np.float32), "udp")  # type: ignore[arg-type]
