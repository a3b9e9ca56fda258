"""Laws of crops: a drawn dot arrives where the affine says, and a JPEG crop is near its pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.frames.crops import decode_crop, encode_crop, jpeg_round_trip, warp_crop
from pipeline.frames.geometry import (
    Affine,
    apply,
    box_to_crop,
    compose,
    crop_to_heatmap,
    invert,
    mirror_affine,
    view_to_crop,
)
from pipeline.frames.heatmaps import decode_heatmaps, encode_keypoints
from store_schemas.choices import MAX_QUALITY, SUBSAMPLINGS
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.formats import CropFormat, crop_format

CROP_HW = (256, 192)
TOLERANCE = 0.05  # crop px: bilinear resampling and 8-bit rounding of a smooth dot


def dot_image(
    point: NDArray[np.float64], sigma: float, size_hw: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return an (H, W, 3) uint8 image of one Gaussian dot, drawn about ``point`` (x, y)."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    heat = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(255 * heat).astype(np.uint8)[..., None], 3, axis=2)


def centroid(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the (x, y) centre of mass of a crop's first channel."""
    heat = crop[..., 0].astype(np.float64)
    y, x = np.mgrid[: heat.shape[0], : heat.shape[1]]
    return np.array([(heat * x).sum(), (heat * y).sum()]) / heat.sum()


def dot_error(image_to_crop: Affine, magnification: float, target: NDArray[np.float64]) -> float:
    """Return how far, in crop px, a dot lands from where it was sent.

    Its sigma is one crop pixel, or one image pixel where that is larger: pixels cannot hold less.
    """
    point = apply(invert(image_to_crop), target[None])[0]
    image = dot_image(point, max(1.0, 1.0 / magnification), (900, 900))
    return float(np.abs(centroid(warp_crop(image, image_to_crop, CROP_HW)) - target).max())


views = st.tuples(
    st.floats(0.25, 4.0),  # magnification: crop px per image px
    st.floats(-np.pi, np.pi),
    st.booleans(),
    st.floats(40, 150),
    st.floats(40, 210),
)


def affine_of(magnification: float, rotation: float, mirrored: bool) -> Affine:
    size = np.array([CROP_HW[1], CROP_HW[0]]) / magnification
    affine = view_to_crop(np.array([450.3, 449.6]), size, np.asarray(rotation), CROP_HW)
    return compose(mirror_affine(CROP_HW[1]), affine) if mirrored else affine


@settings(max_examples=60, deadline=None)
@given(views)
def test_a_dot_lands_where_the_affine_sends_it(
    view: tuple[float, float, bool, float, float],
) -> None:
    magnification, rotation, mirrored, x, y = view
    error = dot_error(affine_of(magnification, rotation, mirrored), magnification, np.array([x, y]))
    assert error <= TOLERANCE


@pytest.mark.parametrize("magnification", [0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0.0, 0.3, -1.5])
def test_a_dot_is_exact_at_the_limits(
    magnification: float, mirrored: bool, rotation: float
) -> None:
    affine = affine_of(magnification, rotation, mirrored)
    assert dot_error(affine, magnification, np.array([80.37, 121.81])) <= TOLERANCE


@pytest.mark.parametrize("frame", ["msra", "half-pixel", "udp"])
def test_the_heatmap_of_a_dot_decodes_to_the_dot(frame: str) -> None:
    affine = affine_of(0.7, -0.6, True)
    to_heatmap = crop_to_heatmap(frame, CROP_HW, (64, 48))  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    points = random.uniform([30, 30], [160, 220], (20, 2))
    image_points = apply(invert(affine), points)
    for image_point in image_points[:4]:
        crop = warp_crop(dot_image(image_point, 2 / 0.7, (900, 900)), affine, CROP_HW)
        seen = apply(to_heatmap, centroid(crop)[None])
        decoded, _ = decode_heatmaps(encode_keypoints(seen[None], (64, 48)))
        expected = apply(compose(to_heatmap, affine), image_point[None])
        assert np.abs(decoded[0] - expected).max() <= 0.05


def test_a_mirrored_view_is_the_mirror_image_of_the_view() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (120, 100, 3), np.uint8)
    affine = box_to_crop([20, 10, 48, 64], (64, 48), padding=1.0)
    plain = warp_crop(image, affine, (64, 48))
    mirrored = warp_crop(image, compose(mirror_affine(48), affine), (64, 48))
    assert np.abs(mirrored[:, ::-1].astype(int) - plain).max() <= 1


def test_a_box_of_the_inputs_size_is_cut_out_exactly() -> None:
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (120, 100, 3), np.uint8)
    affine = box_to_crop([20, 10, 48, 64], (64, 48), padding=1.0)
    assert np.array_equal(warp_crop(image, affine, (64, 48)), image[10:74, 20:68])


@pytest.mark.parametrize(
    "seeded_error",
    [
        pytest.param(np.array([[1.0, 0, 0.5], [0, 1.0, 0.5]]), id="half-pixel shift"),
        pytest.param(np.array([[0, 1.0, 0], [1.0, 0, 0]]), id="swapped x and y"),
        pytest.param(
            np.array([[191 / 192, 0, 0], [0, 255 / 256, 0]]), id="scale from width minus one"
        ),
    ],
)
def test_the_dot_notices_a_wrong_affine(seeded_error: Affine) -> None:
    affine = affine_of(1.3, 0.2, False)
    target = np.array([120.0, 70.0])
    point = apply(invert(compose(seeded_error, affine)), target[None])[0]
    crop = warp_crop(dot_image(point, 2 / 1.3, (900, 900)), affine, CROP_HW)
    assert np.abs(centroid(crop) - target).max() > TOLERANCE


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
