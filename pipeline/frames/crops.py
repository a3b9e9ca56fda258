"""The warp from image to crop, the same for teachers, students, evaluation and pictures."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frames.geometry import Affine, SizeHW

cv2.setNumThreads(1)  # callers warp in threads or processes of their own


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
