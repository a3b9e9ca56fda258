"""One normalisation of pixels: the formula, and the same bits in numpy and torch."""

import numpy as np
import pytest
import torch

from pipeline.frames.pixels import PixelNormalisation
from pipeline.settings import IMAGENET_MEAN, IMAGENET_STD

EVERY_LEVEL = np.arange(256, dtype=np.uint8)
CROPS = np.stack([EVERY_LEVEL, EVERY_LEVEL[::-1], np.roll(EVERY_LEVEL, 77)], -1).reshape(
    1, 16, 16, 3
)


@pytest.mark.parametrize(
    "pixels",
    [
        PixelNormalisation(),
        PixelNormalisation((0.5, 0.5, 0.5), (0.5, 0.25, 1.0), channel_order="bgr"),
        PixelNormalisation((103.5, 116.3, 123.7), (57.4, 57.1, 58.4), scale=1.0),
    ],
)
def test_numpy_and_torch_give_the_same_bits(pixels: PixelNormalisation) -> None:
    expected = pixels.normalise_array(CROPS)
    images = pixels.normalise(torch.from_numpy(CROPS))
    assert images.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(images.numpy(), expected)


def test_a_pixel_is_scaled_then_the_mean_taken_off_then_divided() -> None:
    """Every level of every channel, against the textbook's formula in float64."""
    images = PixelNormalisation().normalise_array(CROPS)
    expected = (CROPS / 255.0 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(images, expected.transpose(0, 3, 1, 2), atol=5e-7, rtol=0)
    assert IMAGENET_MEAN == (0.485, 0.456, 0.406)
    assert IMAGENET_STD == (0.229, 0.224, 0.225)


def test_bgr_networks_get_blue_first() -> None:
    blue = np.zeros((1, 2, 2, 3), np.uint8)
    blue[..., 2] = 255
    plain = PixelNormalisation((0, 0, 0), (1, 1, 1), channel_order="bgr")
    assert plain.normalise_array(blue)[0, :, 0, 0].tolist() == [1, 0, 0]
    assert plain.normalise(torch.from_numpy(blue))[0, :, 0, 0].tolist() == [1, 0, 0]


def test_crops_are_not_changed() -> None:
    crops = torch.from_numpy(CROPS.copy())
    PixelNormalisation().normalise(crops)
    np.testing.assert_array_equal(crops.numpy(), CROPS)
