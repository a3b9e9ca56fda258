"""Read crops and tokens, the arrays that only some teachers have, view by view.

As with heatmaps every chunk is compared with the crc32c of its row.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.frames.crops import decode_crop
from pipeline.teacher_store.plan import StoreLayout
from pipeline.teacher_store.shard_files import ManifestFiles
from pipeline.teacher_store.shards import NoRecords, Records, ShardedArray
from store_schemas.chunks import decode_view
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.formats import CHECKSUMS

MAX_DOWNLOADED = 32
"""Shards of each array that are kept when an open shard is in memory."""

LENGTH_BYTES = 4


class CropLengths:
    """Records of crops: the length of each JPEG, uint32."""

    num_bytes = LENGTH_BYTES

    def __init__(self, files: ManifestFiles) -> None:
        self._files = files

    def of_shard(self, shard: int) -> NDArray[np.uint8]:
        lengths = self._files.read_rows("crop_bytes", shard).astype("<u4")
        return lengths.reshape(-1, 1).view(np.uint8)

    def of_view(self, shard: int, place: int) -> bytes:
        return self._files.read_piece("crop_bytes", shard, place, LENGTH_BYTES)


class OptionalReader:
    """The crops and tokens of one teacher, if it has any."""

    def __init__(self, layout: StoreLayout, files: ManifestFiles) -> None:
        self._layout = layout
        self._optional = layout.dimensions.optional
        folder = layout.folder
        max_kept = folder.max_open_files if folder.has_files else MAX_DOWNLOADED
        self._arrays: dict[str, ShardedArray] = {}
        for name in (name for name in CHECKSUMS if name in layout.shard_specs):
            spec = layout.shard_specs[name]
            chunk_bytes = math.prod(spec.shape[2:]) * spec.numpy_dtype.itemsize
            records: Records = CropLengths(files) if name == "crops" else NoRecords()
            self._arrays[name] = ShardedArray(
                layout, files, name, CHECKSUMS[name], chunk_bytes, records, max_kept
            )

    def read_crops(self, views: NDArray[np.int64], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
        """Return B crops with their margin: (B, H', W', 3) uint8, RGB.

        Args:
            views: (B,), row * V + view, all with status OK.
            size_hw: (H, W) of the teacher's input.

        Raises:
            SchemaError: the store has no crops.
            CorruptError: names shard, row and view.
        """
        if self._optional.crops is None:
            raise SchemaError(
                f"{self._layout.folder} must hold crops, but was written without them; write a "
                "store with cache-teacher --crops, or give the images"
            )
        stored_hw = self._optional.crops.stored_size_hw(size_hw)
        crops = np.empty((len(views), *stored_hw, 3), np.uint8)
        stored = self._arrays["crops"]
        padded = np.empty(self._optional.crops.length, np.uint8)
        for crop, view in zip(crops, views.tolist(), strict=True):
            try:
                length = int.from_bytes(_decode(stored, view, padded), "little")
                crop[:] = decode_crop(padded[:length], stored_hw)
            except CorruptError as error:
                raise stored.located(view, error) from error
        return crops

    def read_tokens(self, views: NDArray[np.int64]) -> Mapping[str, NDArray[np.float16]]:
        """Return the tokens of B views by kind, ``keypoint`` (B, K, D) and ``visual`` (B, P, D).

        Args:
            views: (B,), row * V + view, all with status OK.

        Raises:
            SchemaError: the store has no tokens.
            CorruptError: names shard, row and view.
        """
        shapes = self._optional.token_shapes(self._layout.dimensions.num_keypoints)
        if not shapes:
            raise SchemaError(
                f"{self._layout.folder} must hold tokens, but was written without them; write "
                "a store with cache-teacher --tokens"
            )
        tokens = {
            name: np.empty((len(views), *shape), np.float16) for name, shape in shapes.items()
        }
        for i, view in enumerate(views.tolist()):
            for name, out in tokens.items():
                try:
                    _decode(self._arrays[name], view, out[i])
                except CorruptError as error:
                    raise self._arrays[name].located(view, error) from error
        return {name.removesuffix("_tokens"): out for name, out in tokens.items()}

    def close(self) -> None:
        """Close the files of this process; reading opens them again."""
        for array in self._arrays.values():
            array.close()


def _decode(stored: ShardedArray, view: int, out: NDArray[Any]) -> bytes:
    """Decode a chunk into place, and return its record."""
    data, crc32c, record = stored.read(view)
    decode_view(data, crc32c, out)
    return record
