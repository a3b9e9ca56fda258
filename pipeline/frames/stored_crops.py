"""Crops as the JPEG files that a store holds.

One library encodes and decodes them. Its version changes the last bits of a pixel, so a teacher
predicts on the decoded file and never on the crop that was encoded.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from store_schemas.errors import CorruptError, SchemaError
from store_schemas.formats import CropFormat

_SUBSAMPLINGS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


def encode_crop(crop: NDArray[np.uint8], crops: CropFormat) -> NDArray[np.uint8]:
    """Encode a crop as a JPEG file.

    Args:
        crop: (H, W, 3) uint8, RGB.

    Returns:
        (n,) uint8, n at most ``crops.length``.

    Raises:
        SchemaError: the file is longer.
    """
    settings = (
        *(cv2.IMWRITE_JPEG_QUALITY, crops.quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SUBSAMPLINGS[crops.subsampling]),
    )
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), settings)
    if len(encoded) > crops.length:
        raise SchemaError(
            f"a crop's JPEG must have at most {crops.length} bytes, got {len(encoded)}; write the "
            f"store with a lower --crop-quality than {crops.quality}"
        )
    return np.asarray(encoded, np.uint8).reshape(-1)


def decode_crop(encoded: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode the JPEG file of a crop: (H, W, 3) uint8, RGB.

    Args:
        encoded: (n,) uint8.
        size_hw: size that the crop must have.

    Raises:
        CorruptError: the file is no JPEG, or its image has another size.
    """
    crop = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB) if len(encoded) else None
    if crop is None or crop.shape != (*size_hw, 3):
        found = "no JPEG" if crop is None else f"one of {crop.shape[0]}x{crop.shape[1]}"
        raise CorruptError(f"a crop must be a JPEG of {size_hw[0]}x{size_hw[1]}, got {found}")
    return np.asarray(crop, np.uint8)


def jpeg_round_trip(
    crop: NDArray[np.uint8], crops: CropFormat
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Encode a crop and decode it again, as the readers of its store will.

    Args:
        crop: (H, W, 3) uint8, RGB.

    Returns:
        decoded: (H, W, 3) uint8, RGB.
        encoded: (n,) uint8.
    """
    encoded = encode_crop(crop, crops)
    height, width = crop.shape[:2]
    return decode_crop(encoded, (height, width)), encoded
