"""Laws of int8 tokens: nothing is clipped, the error has a bound, and no hole is taken for one."""

import numcodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from store_schemas.formats import INT8_TOKEN_BLOSC, OptionalArrays, TokenFormat
from store_schemas.token_codec import dequantise_tokens, measure_token_error, quantise_tokens


def tokens(scale: float = 1.0, shape: tuple[int, ...] = (3, 11, 32)) -> NDArray[np.float32]:
    """Numbers of any kind: spread, heavy-tailed, one-sided, with tokens of zeros."""
    random = np.random.default_rng(0)
    found = random.standard_t(3, shape) * random.lognormal(0, 2, shape[:-1])[..., None]
    found[0, 0], found[1, 1], found[2, 2, 1:] = 0, np.abs(found[1, 1]), 0
    return np.asarray(found * scale, np.float32)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 1e4])
def test_a_number_is_off_by_half_a_step_at_most_and_none_is_clipped(scale: float) -> None:
    given = tokens(scale)
    stored, steps = quantise_tokens(given)
    assert stored.dtype == np.int8
    assert steps.dtype == np.float16
    assert stored.min() >= -127
    found = dequantise_tokens(stored, steps)
    assert found.dtype == np.float32
    half_step = steps.astype(np.float64)[..., None] / 2
    assert (np.abs(found.astype(np.float64) - given) <= half_step * (1 + 1e-5)).all()
    largest = np.abs(given).max(axis=-1).astype(np.float64)
    # rounded up to the next float16: by 2^-10 of it, or by the smallest one
    assert (steps.astype(np.float64) * 127 >= largest).all()
    assert (steps <= np.maximum(largest / 127 * (1 + 2**-10), largest / 127 + 2**-24)).all()


def test_the_largest_number_of_a_token_has_level_127_of_its_sign() -> None:
    given = np.array([[[1.0, -2.0, 0.5], [3.0, 0.0, -1.5], [0.0, 0.0, 0.0]]], np.float32)
    stored, scale = quantise_tokens(given)
    assert stored.tolist() == [[[63, -127, 32], [127, 0, -63], [0, 0, 0]]] or stored.tolist() == [
        [[64, -127, 32], [127, 0, -64], [0, 0, 0]]
    ]
    assert scale[0, 2] == 0
    assert scale[0, 0] == pytest.approx(2 / 127, rel=2**-10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 9e6])
def test_a_token_that_cannot_be_stored_has_a_scale_that_is_not_finite(value: float) -> None:
    given = tokens()
    given[1, 3, 5] = value
    _, scale = quantise_tokens(given)
    assert np.argwhere(~np.isfinite(scale)).tolist() == [[1, 3]]


def test_the_largest_storable_number_is_127_times_that_of_float16() -> None:
    given = np.full((1, 1, 2), 127 * 65504.0, np.float32)
    stored, scale = quantise_tokens(given)
    np.testing.assert_array_equal(dequantise_tokens(stored, scale), given)


def test_the_error_is_relative_to_the_largest_number_of_each_token() -> None:
    given = tokens()
    stored, scale = quantise_tokens(given)
    found = measure_token_error(given, stored, scale)
    errors = []
    for token, levels, step in zip(
        given.reshape(-1, 32), stored.reshape(-1, 32), scale.ravel(), strict=True
    ):
        for number, level in zip(token.tolist(), levels.tolist(), strict=True):
            whole = max(map(abs, token.tolist()))
            errors.append(abs(level * float(step) - number) / whole if whole else 0.0)
    assert found.num_values == len(errors)
    assert found.largest == pytest.approx(max(errors), rel=1e-4)
    assert found.rms == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-4)
    assert 1 / 300 < found.largest <= 1 / 254 * 1.002


def test_a_number_takes_at_most_eight_and_a_half_bits_with_all_that_belongs_to_it() -> None:
    """Visual tokens of a view: chunk, scales, both checksums, and the entry in the index."""
    given = np.random.default_rng(0).normal(0, 1, (1, 256, 192)).astype(np.float32)
    stored, scale = quantise_tokens(given)
    settings = {name: value for name, value in INT8_TOKEN_BLOSC.items() if name != "typesize"}
    chunk = numcodecs.Blosc(**{**settings, "shuffle": 0}).encode(stored)
    num_bytes = len(chunk) + scale.nbytes + 4 + 4 + 16
    assert 6 < num_bytes * 8 / given.size < 7.7


def test_the_section_names_the_type_of_int8_tokens_alone() -> None:
    int8 = TokenFormat(("visual",), 192, (16, 16), "int8")
    assert int8.to_json() == {
        **{"kinds": ["visual"], "dim": 192, "grid": [16, 16]},
        "dtype": "int8",
    }
    assert TokenFormat.from_json(int8.to_json()) == int8
    assert "dtype" not in TokenFormat(("visual",), 192, (16, 16)).to_json()
    optional = OptionalArrays(None, int8)
    assert optional.view_bytes(17) == 256 * 192
    assert optional.names() == ("visual_tokens", "visual_token_scale", "visual_token_crc32c")


@pytest.mark.parametrize("dtype", ["float16", "int4", None, 8])
def test_another_type_of_tokens_is_refused(dtype: object) -> None:
    section = {"kinds": ["visual"], "dim": 192, "grid": [16, 16], "dtype": dtype}
    with pytest.raises(ValueError, match="a dtype of int8 or none"):
        TokenFormat.from_json(section)
