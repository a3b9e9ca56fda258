"""Laws of crops as JPEG: every crop fits, what is left of it is near, and nothing is guessed."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.frames.crops import decode_crop, encode_crop, jpeg_round_trip
from store_schemas.choices import MAX_QUALITY, SUBSAMPLINGS
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.optional_arrays import CropFormat, crop_format

SIZE_HW = (64, 48)


def smooth(seed: int = 0) -> NDArray[np.uint8]:
    """A crop without sharp edges, as photographs mostly are; channels differ."""
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]] / 20 + seed
    waves = [np.sin(x + c) * np.cos(y - c) for c in range(3)]
    return np.asarray(127 + 100 * np.stack(waves, axis=-1), np.uint8)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("size_hw", [(256, 192), (8, 6), (33, 17)])
def test_even_the_worst_noise_fits_at_the_highest_quality(
    size_hw: tuple[int, int], subsampling: str
) -> None:
    crops = crop_format(size_hw, MAX_QUALITY, subsampling)
    noise = np.random.default_rng(0).integers(0, 2, (*size_hw, 3)).astype(np.uint8) * 255
    assert 0 < len(encode_crop(noise, crops)) <= crops.length


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_what_is_left_is_nearer_the_higher_the_quality_and_in_rgb(subsampling: str) -> None:
    crop, errors = smooth(), []
    for quality in (30, 75, 95):
        left, encoded = jpeg_round_trip(crop, crop_format(SIZE_HW, quality, subsampling))
        np.testing.assert_array_equal(left, decode_crop(encoded, SIZE_HW), strict=True)
        errors.append(float(np.abs(left.astype(float) - crop).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1.5


def test_the_same_crop_is_the_same_file() -> None:
    crops = crop_format(SIZE_HW, 90, "4:2:0")
    np.testing.assert_array_equal(encode_crop(smooth(), crops), encode_crop(smooth(), crops))


def test_a_file_that_does_not_fit_is_refused_with_the_way_out() -> None:
    with pytest.raises(SchemaError, match=r"at most 100 bytes, .* lower --crop-quality than 90"):
        encode_crop(smooth(), CropFormat(90, "4:2:0", 100))


def test_what_is_no_jpeg_or_of_another_size_is_corrupt() -> None:
    encoded = encode_crop(smooth(), crop_format(SIZE_HW, 90, "4:2:0"))
    with pytest.raises(CorruptError, match="a JPEG of 64x64, got one of 64x48"):
        decode_crop(encoded, (64, 64))
    for bad in (encoded[:0], np.zeros(50, np.uint8)):
        with pytest.raises(CorruptError, match="a JPEG of 64x48, got no JPEG"):
            decode_crop(bad, SIZE_HW)
