"""The images of a training: decoded strictly, checked once, and kept while memory allows."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import decode_image, resolve_image, sha256_file
from pipeline.coco.people import People
from pipeline.errors import ImageError


class TrainingImages:
    """Images by their row in the people's table, as one process reads them.

    image_sha256: (M, 32) uint8, what the images were when a store was written; None: not checked.
    cache_bytes: how much of the decoded images to keep, the most recently used ones.
    """

    def __init__(
        self,
        people: People,
        image_folder: Path,
        image_sha256: NDArray[np.uint8] | None = None,
        cache_bytes: int = 0,
    ) -> None:
        self._people = people
        self._folder = image_folder
        self._sha256 = image_sha256
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._num_bytes = 0
        self._checked: set[int] = set()

    def read(self, image_index: int) -> NDArray[np.uint8]:
        """Return an image as (H, W, 3) uint8 RGB.

        Raises:
            ImageError: it cannot be decoded whole, or is not the image that was annotated or
                cached.
        """
        if image_index in self._cached:
            self._cached.move_to_end(image_index)
            return self._cached[image_index]
        image = self._read(image_index)
        if image.nbytes <= self._cache_bytes:
            self._cached[image_index] = image
            self._num_bytes += image.nbytes
        while self._num_bytes > self._cache_bytes:
            self._num_bytes -= self._cached.popitem(last=False)[1].nbytes
        return image

    def _read(self, image_index: int) -> NDArray[np.uint8]:
        path = resolve_image(self._folder, self._people.image_name[image_index])
        if self._sha256 is not None and image_index not in self._checked:
            expected, got = self._sha256[image_index].tobytes().hex(), sha256_file(path)
            if got != expected:
                raise ImageError(
                    f"image {str(path)!r} has changed since the teacher store was written (sha256 "
                    f"{got[:12]}, then {expected[:12]}); give the original image, or write another "
                    "store"
                )
            self._checked.add(image_index)
        image = decode_image(path)
        expected_hw = tuple(self._people.image_size_hw[image_index].tolist())
        if image.shape[:2] != expected_hw:
            raise ImageError(
                f"image {str(path)!r} is {image.shape[0]} x {image.shape[1]} pixels (height x "
                f"width), its annotation says {expected_hw[0]} x {expected_hw[1]}; give the "
                "annotated image"
            )
        return image
