"""Read views out of shard files: one ``pread`` per view, 10 to 40 times faster than zarr's own.

Open files, indexes and the checks that are made once belong to one process: after a fork they are
opened and made again. What a process keeps does not grow with the store: the shards it opened last.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.layout import StoreLayout
from pipeline.teacher_store.manifest import Manifest
from pipeline.teacher_store.stored_file import ShardFile, StoredFile
from pipeline.teacher_store.stored_views import AFFINE_BYTES, StoredViewPlan, join_affines
from store_schemas.chunks import RESTORE, decode_plain_chunk, decode_view
from store_schemas.errors import CorruptError

MAX_OPEN_FILES = 200
"""Two of each shard that is kept ready: of 100 shards, so of 102,400 views."""


@dataclass(slots=True)
class _OpenShard:
    """One shard, ready to be read; 68 bytes a view."""

    heatmaps: ShardFile
    checksums: memoryview
    """uint32, crc32c of every view's chunk."""
    outputs: StoredFile
    image_to_crop: memoryview
    """48 bytes a view; empty where ``keeps_affines`` is false."""

    def close(self) -> None:
        self.heatmaps.close()
        self.outputs.close()


@dataclass
class _ProcessState:
    """What one process has opened and checked."""

    process: int = field(default_factory=os.getpid)
    shards: dict[int, _OpenShard] = field(default_factory=dict)
    """The first opened first; reads are random, so to note the last used would gain nothing."""
    checked: set[int] = field(default_factory=set)
    """Shards whose outputs were compared with the manifest's sha256."""

    def close(self) -> None:
        while self.shards:
            self.shards.popitem()[1].close()


class ShardFiles:
    """The shards of one teacher, read by view."""

    def __init__(self, layout: StoreLayout, plan: StoredViewPlan, manifest: Manifest) -> None:
        self._layout = layout
        self._plan = plan
        self._manifest = manifest
        self._specs = layout.shard_specs
        self._columns = {name: column for column, name in enumerate(self._specs)}
        self._num_views = layout.dimensions.num_views
        self._num_keypoints = layout.dimensions.num_keypoints
        self._views_per_shard = layout.dimensions.rows_per_shard * self._num_views
        # where shards come and go, reading all of a shard's affines for one view does not pay
        self._keeps_affines = 2 * layout.dimensions.num_shards <= MAX_OPEN_FILES
        self._state = _ProcessState()

    def read(
        self, views: NDArray[np.int64], heatmaps: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Read B views.

        Args:
            views: (B,), row * V + view.
            heatmaps: (B, K, Hh, Wh) of the profile's dtype, C order, to decode into.

        Returns:
            outputs: (B, K, 4) as (scale, confidence, x, y).
            image_to_crop: (B, 2, 3).

        Raises:
            CorruptError: names shard, row and view.
        """
        opened = self._own_state().shards
        length, views_per_shard = self._num_keypoints * 16, self._views_per_shard
        outputs: list[bytes] = []
        affines: list[memoryview] = []
        keeps_affines = self._keeps_affines
        view = 0
        try:
            for view, out in zip(views.tolist(), heatmaps, strict=True):
                shard, place = divmod(view, views_per_shard)
                current = opened.get(shard) or self._open_shard(shard)
                decode_view(current.heatmaps.read(place), current.checksums[place], out)
                outputs.append(current.outputs.read(length, place * length))
                if keeps_affines:
                    start = place * AFFINE_BYTES
                    affines.append(current.image_to_crop[start : start + AFFINE_BYTES])
        except CorruptError as error:
            row, view_of_row = divmod(view, self._num_views)
            where = f"shard {view // views_per_shard}, row {row}, view {view_of_row}"
            raise CorruptError(f"{self._layout.folder}: {where}: {error}") from error
        stored = np.frombuffer(b"".join(outputs), "<f4").reshape(-1, self._num_keypoints, 4)
        if keeps_affines:
            return stored, join_affines(affines)
        return stored, self._plan.read_image_to_crop(views)

    def read_small(self, name: str, shard: int) -> NDArray[Any]:
        """Return a shard's rows of an array that is not sharded, compared with the manifest.

        Raises:
            CorruptError: missing, torn or altered.
        """
        spec, column = self._specs[name], self._columns[name]
        path = spec.chunk_name(shard)
        try:
            data = self._layout.folder.read(path, int(self._manifest.lengths[shard, column]))
        except FileNotFoundError:
            raise CorruptError(f"{path} is missing{RESTORE}") from None
        rows = decode_plain_chunk(spec, shard, data)
        if sha256(data).digest() != self._manifest.sha256[shard, column].tobytes():
            raise CorruptError(f"{path} must have the sha256 of the manifest{RESTORE}")
        return rows

    def close(self) -> None:
        """Close the files of this process; reading opens them again."""
        self._own_state().close()

    def _own_state(self) -> _ProcessState:
        if self._state.process != os.getpid():
            self._state.close()  # the parent's, which this process inherited as copies
            self._state = _ProcessState()
        return self._state

    def _open_shard(self, shard: int) -> _OpenShard:
        """Make a shard ready, and close the one that was opened first.

        Raises:
            CorruptError: a file is missing, torn or altered.
        """
        state = self._state
        if shard not in state.checked:
            self.read_small("outputs", shard)
            state.checked.add(shard)
        checksums = self.read_small("heatmap_crc32c", shard).astype(np.uint32).ravel()
        folder, specs = self._layout.folder, self._specs
        sizes = {
            name: int(self._manifest.lengths[shard, self._columns[name]])
            for name in ("heatmaps", "outputs")
        }
        with ExitStack() as opened:
            heatmaps = ShardFile.open(
                folder,
                specs["heatmaps"].chunk_name(shard),
                sizes["heatmaps"],
                self._views_per_shard,
                self._layout.dimensions.view_bytes,
            )
            opened.callback(heatmaps.close)
            outputs = StoredFile.open(folder, specs["outputs"].chunk_name(shard), sizes["outputs"])
            opened.callback(outputs.close)
            rows = self._layout.dimensions.shard_rows(shard)
            affines = self._plan.read_rows(rows) if self._keeps_affines else b""
            opened.pop_all()
        max_open_files = min(MAX_OPEN_FILES, folder.max_open_files)
        while state.shards and 2 * (len(state.shards) + 1) > max_open_files:
            state.shards.pop(next(iter(state.shards))).close()
        state.shards[shard] = _OpenShard(heatmaps, checksums.data, outputs, memoryview(affines))
        return state.shards[shard]

    def __del__(self) -> None:
        state = getattr(self, "_state", None)
        if state is not None:
            state.close()
