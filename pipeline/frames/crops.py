"""Crops: the warp from image to crop, the same for all, and crops as JPEG files of a store.

One library encodes and decodes the JPEG. Its version changes the last bits of a pixel, so a teacher
predicts on the decoded file and never on the crop that was encoded.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frames.geometry import Affine, SizeHW
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.formats import CropFormat

cv2.setNumThreads(1)  # callers warp in threads or processes of their own

_SUBSAMPLINGS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


def warp_crop(
    image: NDArray[np.uint8], image_to_crop: Affine, crop_size_hw: SizeHW
) -> NDArray[np.uint8]:
    """Cut a crop from an image by bilinear interpolation; pixels outside the image are black.

    image: (H, W, 3) uint8, RGB, image frame.
    image_to_crop: (2, 3), mirror included.
    Returns (h, w, 3) uint8, RGB, crop frame.
    """
    height, width = crop_size_hw
    warped = cv2.warpAffine(image, image_to_crop, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(warped, np.uint8)


def central_part(wide_crops: NDArray[np.uint8], margin_hw: SizeHW) -> NDArray[np.uint8]:
    """Return the crops (..., H, W, 3) inside of wide crops (..., H', W', 3); a view of them.

    margin_hw: pixels above and below, and left and right, of each crop.
    """
    rows, columns = margin_hw
    height, width = wide_crops.shape[-3:-1]
    return wide_crops[..., rows : height - rows, columns : width - columns, :]


def encode_crop(crop: NDArray[np.uint8], crops: CropFormat) -> NDArray[np.uint8]:
    """Encode a crop, (H, W, 3) uint8 RGB, as a JPEG file: (n,) uint8.

    Raises:
        SchemaError: the file is longer than ``crops.length`` bytes.
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
    """Decode the JPEG file of a crop, (n,) uint8, to (H, W, 3) uint8 RGB of that size.

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
    """Return a crop as the readers of its store decode it, (H, W, 3), and its JPEG file, (n,)."""
    encoded = encode_crop(crop, crops)
    return decode_crop(encoded, (crop.shape[0], crop.shape[1])), encoded
