"""Images of a training: decoded strictly, compared with their digests, cached up to a limit."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import (
    FileStamp,
    ImageBytes,
    decode_image_bytes,
    read_image_bytes,
    resolve_image,
)
from pipeline.coco.people import People
from pipeline.errors import ImageError


class TrainingImages:
    """Reads images by their index in the people's table; each process has its own cache.

    A file whose bytes had the store's digest is trusted as long as its inode, size and time of last
    change stay the same; once one of them differs, its bytes are compared again.

    image_sha256: (M, 32) uint8, digests of the files when the store was written; None: not
        compared.
    cache_bytes: largest size of the cached decoded images; the least recently used are dropped.
    paranoid: compare the digest at every decode, even if the file appears unchanged.
    """

    def __init__(
        self,
        people: People,
        image_folder: Path,
        image_sha256: NDArray[np.uint8] | None = None,
        cache_bytes: int = 0,
        *,
        paranoid: bool = False,
    ) -> None:
        self._people = people
        self._folder = image_folder
        self._sha256 = image_sha256
        self._cache_bytes = cache_bytes
        self._paranoid = paranoid
        self._cached: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._num_bytes = 0
        self._trusted: dict[int, FileStamp] = {}

    def read(self, image_index: int) -> NDArray[np.uint8]:
        """Return an image as (H, W, 3) uint8 RGB.

        Raises:
            ImageError: the image cannot be decoded whole, or differs in size from the annotation or
                in its digest from the store.
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
        file = read_image_bytes(path)
        if self._sha256 is not None and not self._is_trusted(image_index, file):
            self._check_digest(image_index, path, file, self._sha256[image_index].tobytes())
        image = decode_image_bytes(file.content, path)
        expected_hw = tuple(self._people.image_size_hw[image_index].tolist())
        if image.shape[:2] != expected_hw:
            raise ImageError(
                f"image {str(path)!r} must have {expected_hw[0]} x {expected_hw[1]} pixels (height "
                f"x width) as annotated, got {image.shape[0]} x {image.shape[1]}; give the "
                "annotated image"
            )
        return image

    def _is_trusted(self, image_index: int, file: ImageBytes) -> bool:
        is_known = file.stamp is not None and self._trusted.get(image_index) == file.stamp
        return is_known and not self._paranoid

    def _check_digest(
        self, image_index: int, path: Path, file: ImageBytes, expected: bytes
    ) -> None:
        if file.sha256 != expected:
            raise ImageError(
                f"image {str(path)!r} has changed since the teacher store was written: expected "
                f"sha256 {expected.hex()[:12]}, got {file.sha256.hex()[:12]}; give the original "
                "image, or write another store"
            )
        if file.stamp is not None:
            self._trusted[image_index] = file.stamp
