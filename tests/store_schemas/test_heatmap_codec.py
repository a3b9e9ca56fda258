"""Laws of the heatmap codec."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from store_schemas.heatmap_codec import decode_heatmaps, encode_heatmaps

HEAT = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),  # denormals and huge ones too
    st.floats(-0.5, 1.5, width=32),
    st.just(0.0),
)
HEATMAPS = hnp.arrays(np.float32, (2, 3, 4), elements=HEAT)
ROUNDING = 1 + 2.0**-14
"""Quotient and product are float32: 255 levels times 2^-23, in parts of a level."""


@given(HEATMAPS, st.sampled_from([0.0, 1e-40, 0.01, 0.5]))
def test_stored_heat_stays_within_the_bound(
    heatmaps: np.ndarray[tuple[int, ...], np.dtype[np.float32]], threshold: float
) -> None:
    levels, scale = encode_heatmaps(heatmaps, threshold)
    stored = levels.astype(np.float64) * scale[..., None, None].astype(np.float64)
    error = np.abs(stored - np.maximum(heatmaps.astype(np.float64), 0))
    bound = np.maximum(scale.astype(np.float64) / 2, float(np.float32(threshold)))
    assert (error <= bound[..., None, None] * ROUNDING).all()
    decoded = decode_heatmaps(levels, scale)
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded, stored, rtol=2.0**-23)


@given(HEATMAPS, st.sampled_from([0.0, 0.01]))
def test_a_map_has_scale_0_exactly_where_no_heat_is_stored(
    heatmaps: np.ndarray[tuple[int, ...], np.dtype[np.float32]], threshold: float
) -> None:
    levels, scale = encode_heatmaps(heatmaps, threshold)
    has_heat = ((heatmaps > 0) & (heatmaps >= threshold)).any(axis=(-2, -1))
    assert ((scale > 0) == has_heat).all()
    assert ((levels.max(axis=(-2, -1)) > 0) == has_heat).all()


def test_the_peak_takes_the_highest_level_even_above_1() -> None:
    heatmaps = np.array([[[0.0, 1.25], [0.5, -3.0]]], np.float32)
    levels, scale = encode_heatmaps(heatmaps, 0.01)
    assert levels.tolist() == [[[0, 255], [102, 0]]]
    assert scale[0] == np.float32(1.25) / np.float32(255)


def test_heat_below_the_threshold_is_stored_as_zero_and_at_it_is_kept() -> None:
    heatmaps = np.array([[[1.0, 0.0099, 0.01]]], np.float32)
    levels, _ = encode_heatmaps(heatmaps, float(np.float32(0.01)))
    assert levels.tolist() == [[[255, 0, 3]]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_heat_that_is_not_finite_is_refused(bad: float) -> None:
    heatmaps = np.zeros((1, 2, 2), np.float32)
    heatmaps[0, 0, 0] = bad
    with pytest.raises(ValueError, match="heatmaps must be finite"):
        encode_heatmaps(heatmaps, 0.01)


def test_another_dtype_or_a_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="must be float32"):
        encode_heatmaps(np.zeros((1, 2, 2)), 0.01)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threshold must be finite and at least 0"):
        encode_heatmaps(np.zeros((1, 2, 2), np.float32), -1.0)


def test_the_input_is_left_as_it_was() -> None:
    heatmaps = np.array([[[-1.0, 0.5]]], np.float32)
    encode_heatmaps(heatmaps, 0.01)
    assert heatmaps.tolist() == [[[-1.0, 0.5]]]
