"""Read crops and tokens, the arrays that only some stores have, view by view.

As with heatmaps every chunk is compared with the crc32c of its row, and descriptors and indexes
belong to one process: after a fork they are opened again.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.frames.stored_crops import decode_crop
from pipeline.teacher_store.layout import StoreLayout
from pipeline.teacher_store.manifest import Manifest
from pipeline.teacher_store.stored_file import ShardFile
from store_schemas.chunks import decode_view
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.optional_arrays import CHECKSUMS

MAX_OPEN_SHARDS = 32
"""Of each array, so of 32,768 views; the one that was opened first is closed first."""

ReadSmall = Callable[[str, int], NDArray[Any]]
"""Returns a shard's rows of an array that is not sharded, compared with the manifest."""


@dataclass(slots=True)
class _OpenShard:
    file: ShardFile
    checksums: NDArray[np.uint32]  # (views,)
    lengths: NDArray[np.uint32] | None  # (views,), bytes of each crop's JPEG


class OptionalReader:
    """The crops and tokens of one teacher, those that it has."""

    def __init__(self, layout: StoreLayout, manifest: Manifest, read_small: ReadSmall) -> None:
        self._layout = layout
        self._manifest = manifest
        self._read_small = read_small
        self._optional = layout.dimensions.optional
        self._specs = layout.shard_specs
        self._columns = {name: column for column, name in enumerate(self._specs)}
        self._num_views = layout.dimensions.num_views
        self._views_per_shard = layout.dimensions.rows_per_shard * self._num_views
        self._process = os.getpid()
        self._open: dict[str, dict[int, _OpenShard]] = {name: {} for name in CHECKSUMS}

    def read_crops(self, views: NDArray[np.int64], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
        """Return B crops: (B, H, W, 3) uint8, RGB.

        Args:
            views: (B,), row * V + view, all with status OK.
            size_hw: (H, W).

        Raises:
            SchemaError: the store has no crops.
            CorruptError: names shard, row and view.
        """
        if self._optional.crops is None:
            raise SchemaError(
                f"{self._layout.folder} must hold crops, but was written without; write a store "
                "with cache-teacher --crops, or give the images"
            )
        crops = np.empty((len(views), *size_hw, 3), np.uint8)
        padded = np.empty(self._optional.crops.length, np.uint8)
        for crop, view in zip(crops, views.tolist(), strict=True):
            shard, place = divmod(view, self._views_per_shard)
            try:
                found = self._read_view("crops", shard, place, padded)
                assert found.lengths is not None
                crop[:] = decode_crop(padded[: found.lengths[place]], size_hw)
            except CorruptError as error:
                raise self._located(view, error) from error
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
                f"{self._layout.folder} must hold tokens, but was written without; write a store "
                "with cache-teacher --tokens"
            )
        tokens = {
            name: np.empty((len(views), *shape), np.float16) for name, shape in shapes.items()
        }
        for i, view in enumerate(views.tolist()):
            shard, place = divmod(view, self._views_per_shard)
            try:
                for name, out in tokens.items():
                    self._read_view(name, shard, place, out[i])
            except CorruptError as error:
                raise self._located(view, error) from error
        return {name.removesuffix("_tokens"): out for name, out in tokens.items()}

    def close(self) -> None:
        """Close the files of this process; reading opens them again."""
        for shards in self._open.values():
            while shards:
                shards.popitem()[1].file.close()

    def _read_view(self, name: str, shard: int, place: int, out: NDArray[Any]) -> _OpenShard:
        if self._process != os.getpid():
            self.close()  # the parent's, which this process inherited as copies
            self._process = os.getpid()
        opened = self._open[name].get(shard) or self._open_shard(name, shard, out.nbytes)
        decode_view(opened.file.read(place), int(opened.checksums[place]), out)
        return opened

    def _open_shard(self, name: str, shard: int, chunk_bytes: int) -> _OpenShard:
        """Make a shard of an array ready, and close the one that was opened first."""
        checksums = self._read_small(CHECKSUMS[name], shard).astype(np.uint32).ravel()
        lengths = self._read_small("crop_bytes", shard).ravel() if name == "crops" else None
        file = ShardFile.open(
            self._layout.folder,
            self._specs[name].chunk_name(shard),
            int(self._manifest.lengths[shard, self._columns[name]]),
            self._views_per_shard,
            chunk_bytes,
        )
        shards = self._open[name]
        while len(shards) >= min(MAX_OPEN_SHARDS, self._layout.folder.max_open_files):
            shards.pop(next(iter(shards))).file.close()
        shards[shard] = _OpenShard(file, checksums, lengths)
        return shards[shard]

    def _located(self, view: int, error: CorruptError) -> CorruptError:
        row, column = divmod(view, self._num_views)
        shard = view // self._views_per_shard
        where = f"shard {shard}, row {row}, view {column}"
        return CorruptError(f"{self._layout.folder}: {where}: {error}")

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()
