"""Laws of the heatmap codec, for every profile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from store_schemas.heatmap_codec import (
    NOT_MEASURED,
    CodecError,
    dequantise_heatmaps,
    error_bound,
    is_measured,
    measure_codec_error,
    quantise_heatmaps,
    sum_codec_errors,
)
from store_schemas.profiles import PROFILES, HeatmapProfile

Maps = NDArray[np.float32]

HEAT = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),  # denormals and huge ones too
    st.floats(-0.5, 1.5, width=32),
    st.just(0.0),
)
HEATMAPS = hnp.arrays(np.float32, (2, 3, 4), elements=HEAT)
ROUNDING = 1 + 2.0**-14
"""Quotient and product are float32: 255 levels times 2^-23, in parts of a level."""
SUBNORMAL = 2 * float(np.finfo(np.float32).smallest_normal)
"""A subnormal scale is as coarse as itself."""
UINT8 = [profile for profile in PROFILES.values() if profile.dtype == "uint8"]
FLOAT16 = PROFILES["lossless-float16"]


@pytest.mark.parametrize("profile", UINT8, ids=lambda profile: profile.name)
@given(heatmaps=HEATMAPS, threshold=st.sampled_from([0.0, 1e-40, 0.01, 0.5]))
def test_stored_heat_stays_within_the_bound(
    profile: HeatmapProfile, heatmaps: Maps, threshold: float
) -> None:
    levels, scale = quantise_heatmaps(heatmaps, threshold, profile)
    stored = levels.astype(np.float64) * scale[..., None, None].astype(np.float64)
    error = np.abs(stored - np.maximum(heatmaps.astype(np.float64), 0))
    bound = error_bound(levels, scale, threshold).astype(np.float64)
    assert (error <= bound * ROUNDING + SUBNORMAL).all()
    decoded = dequantise_heatmaps(levels, scale)
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded, stored, rtol=2.0**-23)


@given(hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(-65504, 65504, width=32)))
def test_float16_keeps_every_value_as_float16_rounds_it(heatmaps: Maps) -> None:
    stored, scale = quantise_heatmaps(heatmaps, 0.0, FLOAT16)
    assert stored.dtype == np.float16
    assert (scale == 1).all()
    error = np.abs(dequantise_heatmaps(stored, scale) - heatmaps)
    assert (error <= error_bound(stored, scale, 0.0)).all()
    again, _ = quantise_heatmaps(dequantise_heatmaps(stored, scale), 0.0, FLOAT16)
    np.testing.assert_array_equal(again, stored)


def test_heat_beyond_float16_is_refused_by_the_lossless_profile_alone() -> None:
    heatmaps = np.full((1, 2, 2), 70_000.0, np.float32)
    with pytest.raises(ValueError, match="at most 65504 to be stored as float16, got 70000"):
        quantise_heatmaps(heatmaps, 0.0, FLOAT16)
    levels, scale = quantise_heatmaps(heatmaps, 0.0)
    assert dequantise_heatmaps(levels, scale).max() == pytest.approx(70_000)


# What becomes of maps that are no Gaussians of height 1.


def test_a_softmax_normalised_map_keeps_its_small_peak() -> None:
    """Its sum is 1 and its peak may lie below every threshold; the scale follows the peak."""
    heatmaps = np.full((1, 64, 48), 1e-6, np.float32)
    heatmaps[0, 20, 30] = 0.002
    levels, scale = quantise_heatmaps(heatmaps, 0.01)
    assert levels[0, 20, 30] == 255
    assert (levels > 0).sum() == 1
    assert dequantise_heatmaps(levels, scale).max() == pytest.approx(0.002)


def test_logits_keep_their_positive_part_alone_and_float16_keeps_all() -> None:
    heatmaps = np.array([[[-9.0, -2.0, 3.0]]], np.float32)
    levels, scale = quantise_heatmaps(heatmaps, 0.01)
    np.testing.assert_allclose(dequantise_heatmaps(levels, scale), [[[0.0, 0.0, 3.0]]], rtol=1e-6)
    np.testing.assert_array_equal(
        dequantise_heatmaps(*quantise_heatmaps(heatmaps, 0.0, FLOAT16)), heatmaps
    )


def test_a_peak_above_1_is_not_clipped() -> None:
    levels, scale = quantise_heatmaps(np.array([[[0.0, 1.25], [0.5, -3.0]]], np.float32), 0.01)
    assert levels.tolist() == [[[0, 255], [102, 0]]]
    assert scale[0] == np.float32(1.25) / np.float32(255)


def test_an_all_zero_or_negative_map_has_scale_0() -> None:
    levels, scale = quantise_heatmaps(np.array([[[0.0, 0.0]], [[-1.0, -2.0]]], np.float32), 0.01)
    assert not levels.any()
    assert scale.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_heat_that_is_not_finite_is_refused(bad: float, profile: HeatmapProfile) -> None:
    heatmaps = np.zeros((1, 2, 2), np.float32)
    heatmaps[0, 0, 0] = bad
    with pytest.raises(ValueError, match="heatmaps must be finite"):
        quantise_heatmaps(heatmaps, 0.01, profile)


def test_another_dtype_or_a_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="must be float32"):
        quantise_heatmaps(np.zeros((1, 2, 2)), 0.01)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threshold must be finite and at least 0"):
        quantise_heatmaps(np.zeros((1, 2, 2), np.float32), -1.0)


def test_the_input_is_left_as_it_was() -> None:
    heatmaps = np.array([[[-1.0, 0.5]]], np.float32)
    quantise_heatmaps(heatmaps, 0.01)
    assert heatmaps.tolist() == [[[-1.0, 0.5]]]


# The error that is measured while writing.


def test_the_measured_error_is_that_of_the_stored_heat() -> None:
    heatmaps = np.array([[[1.0, 0.0105, -0.5]]], np.float32)
    levels, scale = quantise_heatmaps(heatmaps, 0.0)
    error = measure_codec_error(heatmaps, levels, scale)
    expected = abs(3 / 255 - 0.0105)
    assert error.largest == pytest.approx(expected, rel=1e-4)
    assert error.num_values == 3
    assert error.rms == pytest.approx(expected / 3**0.5, rel=1e-4)


def test_errors_add_up_and_nothing_measured_has_no_rms() -> None:
    total = sum_codec_errors([CodecError(0.5, 1.0, 4), NOT_MEASURED, CodecError(0.25, 3.0, 12)])
    assert total == CodecError(0.5, 4.0, 16)
    assert total.rms == 0.5
    assert NOT_MEASURED.rms is None


def test_every_sixteenth_person_is_measured_by_the_row_alone() -> None:
    measured = [row for row in range(16_000) if is_measured(row)]
    assert 900 < len(measured) < 1100
    assert measured[:3] == [row for row in range(measured[2] + 1) if is_measured(row)]
