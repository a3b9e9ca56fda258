"""Laws of heat as levels: exact near the peak, bounded everywhere, and the peak stays the peak."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from store_schemas.heatmap_levels import levels_of_heat

Maps = NDArray[np.float32]

HEAT = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),  # denormals and huge ones too
    st.floats(-0.5, 1.5, width=32),
    st.just(0.0),
)
ORDINARY_HEAT = st.floats(-0.5, 1.5, width=32)
HEATMAPS = st.one_of(
    hnp.arrays(np.float32, (2, 5, 4), elements=ORDINARY_HEAT, fill=st.nothing()),
    hnp.arrays(np.float32, (2, 5, 4), elements=HEAT),
)
ROUNDING = 1 + 2.0**-14
"""Quotient and product are float32: 255 levels times 2^-23, in parts of a level."""

SUBNORMAL = 2 * float(np.finfo(np.float32).smallest_normal)
"""A subnormal scale is as coarse as itself."""


def restored(levels: NDArray[np.uint8], scale: Maps) -> NDArray[np.float64]:
    return levels.astype(np.float64) * scale[..., None, None].astype(np.float64)


def noisy_maps(seed: int = 0) -> Maps:
    """Gaussians of several heights on a floor of noise: (4, 3, 32, 24)."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :24]
    x, y = random.uniform(0, 24, (4, 3, 1, 1)), random.uniform(0, 32, (4, 3, 1, 1))
    height = random.uniform(0.05, 1.2, (4, 3, 1, 1))
    heat = height * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)
    return (heat + random.normal(0, 0.005, heat.shape)).astype(np.float32)


@given(HEATMAPS, st.sampled_from([0.0, 1e-40, 0.01, 0.5]), st.integers(0, 3))
def test_stored_heat_stays_within_the_bound(heatmaps: Maps, threshold: float, radius: int) -> None:
    require_bound(heatmaps, threshold, radius)


@pytest.mark.parametrize("threshold", [0.0, 0.005, 0.02, 0.1])
def test_maps_with_peaks_low_and_high_stay_within_the_bound(threshold: float) -> None:
    require_bound(noisy_maps(), threshold, 2)


def require_bound(heatmaps: Maps, threshold: float, radius: int) -> None:
    levels, scale = levels_of_heat(heatmaps, threshold, radius)
    error = np.abs(restored(levels, scale) - np.maximum(heatmaps.astype(np.float64), 0))
    bound = np.maximum(scale.astype(np.float64), threshold)
    assert (error <= bound[..., None, None] * ROUNDING + SUBNORMAL).all()


@given(HEATMAPS, st.sampled_from([0.0, 0.01, 0.5]), st.integers(0, 3))
def test_the_highest_cell_alone_has_the_highest_level(
    heatmaps: Maps, threshold: float, radius: int
) -> None:
    levels, scale = levels_of_heat(heatmaps, threshold, radius)
    has_heat = (heatmaps > 0).any(axis=(1, 2))
    assert ((scale > 0) == has_heat).all()
    assert ((levels == 255).sum(axis=(1, 2)) == has_heat).all()
    flat, highest = levels.reshape(2, -1), heatmaps.reshape(2, -1).argmax(axis=1)
    assert (flat.argmax(axis=1)[has_heat] == highest[has_heat]).all()


def test_two_modes_that_round_to_one_level_keep_their_order() -> None:
    heatmaps = np.array([[[0.9999, 0.0, 0.0, 1.0]]], np.float32)
    assert levels_of_heat(heatmaps, 0.0, 0)[0].tolist() == [[[254, 0, 0, 255]]]


def test_near_the_peak_the_threshold_changes_nothing() -> None:
    heatmaps = noisy_maps()
    fine, _ = levels_of_heat(heatmaps, 0.0, 3)
    coarse, scale = levels_of_heat(heatmaps, 0.05, 3)
    near = _near_the_peak(heatmaps, 3)
    np.testing.assert_array_equal(coarse[near], fine[near])
    assert (coarse[~near] != fine[~near]).any()
    exact = np.minimum(np.rint(np.maximum(heatmaps, 0) / scale[..., None, None]), 255)
    assert (np.abs(coarse[near] - exact[near]) <= (exact[near] == 255)).all()


def test_far_from_the_peak_levels_are_multiples_of_the_largest_step_in_the_bound() -> None:
    heatmaps = noisy_maps()
    levels, scale = levels_of_heat(heatmaps, 0.02, 2)
    step = np.maximum(np.floor(0.04 / scale.astype(np.float64)), 1)[..., None, None]
    far = ~_near_the_peak(heatmaps, 2) & (levels < 254)
    assert (np.where(far, levels % step, 0) == 0).all()
    assert (step > 1).any()


def _near_the_peak(heatmaps: Maps, radius: int) -> NDArray[np.bool_]:
    near = np.zeros(heatmaps.shape, np.bool_)
    for place in np.ndindex(heatmaps.shape[:2]):
        row, column = np.unravel_index(heatmaps[place].argmax(), heatmaps.shape[2:])
        top, left = max(row - radius, 0), max(column - radius, 0)
        near[(*place, slice(top, row + radius + 1), slice(left, column + radius + 1))] = True
    return near


@pytest.mark.parametrize("value", [0.0, -0.25])
def test_a_map_without_heat_is_all_zero_under_scale_0(value: float) -> None:
    levels, scale = levels_of_heat(np.full((1, 3, 3), value, np.float32), 0.01, 7)
    assert not levels.any()
    assert scale.tolist() == [0.0]


def test_a_peak_above_1_is_not_clipped_and_negative_heat_is() -> None:
    levels, scale = levels_of_heat(np.array([[[1.25, -3.0, 0.5]]], np.float32), 0.01, 2)
    assert levels.tolist() == [[[255, 0, 102]]]
    assert scale[0] == np.float32(1.25) / np.float32(255)


def test_the_input_is_left_as_it_was() -> None:
    heatmaps = np.array([[[-1.0, 0.5]]], np.float32)
    levels_of_heat(heatmaps, 0.01, 7)
    assert heatmaps.tolist() == [[[-1.0, 0.5]]]
