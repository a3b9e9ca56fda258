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
from pipeline.teacher_store.shards import ENTRY, KEPT_BYTES, NoRecords, Records, ShardedArray
from store_schemas.chunks import decode_view
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.formats import CHECKSUMS, TOKEN_SCALES
from store_schemas.token_codec import dequantise_tokens

MAX_DOWNLOADED = 32
"""Shards of each array that are kept when an open shard is in memory."""

LENGTH_BYTES = 4
SCALE_BYTES = 2


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


class TokenScales:
    """Records of int8 tokens: the scale of each token of a view, float16."""

    def __init__(self, files: ManifestFiles, array: str, num_tokens: int) -> None:
        self.num_bytes = SCALE_BYTES * num_tokens
        self._files = files
        self._array = array

    def of_shard(self, shard: int) -> NDArray[np.uint8]:
        scales = self._files.read_rows(self._array, shard).astype("<f2")
        return scales.reshape(-1, self.num_bytes // SCALE_BYTES).view(np.uint8)

    def of_view(self, shard: int, place: int) -> bytes:
        return self._files.read_piece(self._array, shard, place, self.num_bytes)


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
            records: Records = NoRecords()
            if name == "crops":
                records = CropLengths(files)
            elif self._optional.has_token_scales:
                records = TokenScales(files, TOKEN_SCALES[name], spec.shape[2])
            views_per_shard = spec.rows_per_chunk * spec.shape[1]
            shard_bytes = (ENTRY.itemsize + records.num_bytes) * views_per_shard
            self._arrays[name] = ShardedArray(
                layout,
                files,
                name,
                CHECKSUMS[name],
                chunk_bytes,
                records,
                min(max_kept, KEPT_BYTES // shard_bytes),
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

    def read_tokens(
        self, views: NDArray[np.int64]
    ) -> Mapping[str, NDArray[np.float32] | NDArray[np.float16]]:
        """Return the tokens of B views by kind, ``keypoint`` (B, K, D) and ``visual`` (B, P, D).

        Those stored as int8 are float32, those stored as float16 are as stored.

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
        assert self._optional.tokens is not None
        dtype = np.dtype(self._optional.tokens.dtype)
        tokens: dict[str, NDArray[Any]] = {
            name: np.empty((len(views), *shape), dtype) for name, shape in shapes.items()
        }
        records: dict[str, list[bytes]] = {name: [] for name in tokens}
        for i, view in enumerate(views.tolist()):
            for name, out in tokens.items():
                try:
                    records[name].append(_decode(self._arrays[name], view, out[i]))
                except CorruptError as error:
                    raise self._arrays[name].located(view, error) from error
        if self._optional.has_token_scales:
            for name, stored in tokens.items():
                scale = np.frombuffer(b"".join(records[name]), "<f2").reshape(stored.shape[:2])
                tokens[name] = dequantise_tokens(stored, scale.astype(np.float16))
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
