"""Read views out of shard files: one ``pread`` per view, 10 to 40 times faster than zarr's own.

A process keeps some shards ready: their index, checksums and records are in memory, and their file
is open. What it keeps does not grow with the store: where there are more shards, views of the
others are read piece by piece. All of it belongs to one process; after a fork it is made again. The
record of a view is what is read beside its chunk.
"""

import os
import struct
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.plan import StoreLayout, determinant_of
from pipeline.teacher_store.shard_files import (
    ManifestFiles,
    StoredFile,
    read_shard_entry,
    read_shard_index,
    refused_entry,
)
from pipeline.teacher_store.stored_views import StoredViewPlan
from store_schemas.chunks import BLOSC_OVERHEAD, CHECKSUM_BYTES, decode_view
from store_schemas.errors import CorruptError

KEPT_BYTES = 37 << 20
"""Memory of all shards that a process keeps; ``max_open_files`` of a folder bounds them too."""
ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8"), ("crc32c", "<u4"), ("padding", "V4")])
"""Position and checksum of a chunk, in memory of each kept shard."""
_ENTRY_BYTES = ENTRY.itemsize
_unpack_entry = struct.Struct("<QQI4x").unpack_from  # an item of a numpy array takes far longer

StoredChunk = tuple[bytes, int, bytes]
"""A compressed chunk, the crc32c that it must have, and its record."""


class Records(Protocol):
    """Reads what a view has beside its chunk."""

    num_bytes: int
    """Bytes of one view's record."""

    def of_shard(self, shard: int) -> NDArray[np.uint8]:
        """Return the compared records of a shard: (views, num_bytes) uint8, or (1, 0)."""

    def of_view(self, shard: int, place: int) -> bytes:
        """Return the record of one view of a shard that was compared before."""


class NoRecords:
    """No records: for an array of which only the chunks are read."""

    num_bytes = 0

    def of_shard(self, shard: int) -> NDArray[np.uint8]:
        return np.zeros((1, 0), np.uint8)

    def of_view(self, shard: int, place: int) -> bytes:
        return b""


class KeptShard:
    """A shard that was compared and is ready to be read."""

    __slots__ = ("_file", "_longest", "_name", "_stride", "_views")

    def __init__(self, file: StoredFile, name: str, longest: int, views: NDArray[np.uint8]) -> None:
        """Take over the file.

        Args:
            longest: Bytes that no chunk exceeds.
            views: (n, bytes) uint8: for each view an ``ENTRY``, then its record. One piece of
                memory, so that a view costs few cache misses.
        """
        self._file = file
        self._name = name
        self._longest = longest
        self._views = views.tobytes()
        self._stride = views.shape[1]

    def read(self, place: int) -> StoredChunk:
        """Return the chunk of the view at a place of the shard.

        Raises:
            CorruptError: it is missing, or cannot be read.
        """
        start = place * self._stride
        offset, length, crc32c = _unpack_entry(self._views, start)
        if length > self._longest:
            raise refused_entry(self._name, offset, length, self._longest)
        record = self._views[start + _ENTRY_BYTES : start + self._stride]
        return self._file.read(length, offset), crc32c, record

    def close(self) -> None:
        """Close its file; once."""
        self._file.close()


@dataclass
class _ProcessState:
    process: int = field(default_factory=os.getpid)
    kept: dict[int, KeptShard] = field(default_factory=dict)
    """Kept shards, the first opened first: as reads are random, the last used is no better."""
    compared: set[int] = field(default_factory=set)
    """Shards whose index, checksums and records were compared."""
    last_missed: int | None = None
    """The shard read last among those that were not kept."""

    def close(self) -> None:
        while self.kept:
            self.kept.popitem()[1].close()


class ShardedArray:
    """One sharded array of a teacher.

    Args:
        array: Name of the array.
        checksums: Name of the array of its chunks' crc32c.
        chunk_bytes: Length of a chunk before compression.
        max_kept: Shards that a process keeps, at least one.
    """

    def __init__(
        self,
        layout: StoreLayout,
        files: ManifestFiles,
        array: str,
        checksums: str,
        chunk_bytes: int,
        records: Records,
        max_kept: int,
    ) -> None:
        self._folder = layout.folder
        self._files = files
        self._array = array
        self._checksums = checksums
        self._longest = chunk_bytes + BLOSC_OVERHEAD + CHECKSUM_BYTES
        self._records = records
        self._max_kept = max(1, max_kept)
        self._state = _ProcessState()
        self._num_views = layout.dimensions.num_views
        self.views_per_shard = layout.dimensions.rows_per_shard * self._num_views

    def read(self, view: int) -> StoredChunk:
        """Return the chunk of row * V + view.

        Raises:
            CorruptError: a file is missing, torn or altered.
        """
        shard, place = divmod(view, self.views_per_shard)
        return (self.kept().get(shard) or self.open(shard)).read(place)

    def kept(self) -> dict[int, KeptShard]:
        """Return the shards that this process keeps."""
        if self._state.process != os.getpid():
            self._state.close()  # the parent's, which this process inherited as copies
            self._state = _ProcessState()
        return self._state.kept

    def open(self, shard: int) -> "KeptShard | _PassingShard":
        """Make a shard ready that is not kept, or return one that is read by pieces.

        Among many shards in random order hardly any is read again before it is dropped, and making
        one ready for one view takes ten times as long as reading the pieces of that view. A shard
        that is read twice in a row is being read in order.

        Raises:
            CorruptError: a file is missing, torn or altered.
        """
        state, folder = self._state, self._folder
        is_again, state.last_missed = shard == state.last_missed, shard
        is_full = len(state.kept) >= self._max_kept
        if is_full and folder.has_files and shard in state.compared and not is_again:
            return _PassingShard(self, shard)
        opened = self._open_whole(shard)
        while len(state.kept) >= self._max_kept:
            state.kept.pop(next(iter(state.kept))).close()
        state.kept[shard] = opened
        state.compared.add(shard)
        return opened

    def read_pieces(self, shard: int, place: int) -> StoredChunk:
        """Return the chunk of a view of a shard that was compared before and is not kept.

        Raises:
            CorruptError: a file is missing or torn.
        """
        checksum = self._files.read_piece(self._checksums, shard, place, CHECKSUM_BYTES)
        name, num_bytes = self._files.name_and_bytes(self._array, shard)
        with closing(StoredFile.open(self._folder, name, num_bytes)) as file:
            offset, length = read_shard_entry(file, name, num_bytes, self.views_per_shard, place)
            if length > self._longest:
                raise refused_entry(name, offset, length, self._longest)
            data = file.read(length, offset)
        return data, int.from_bytes(checksum, "little"), self._records.of_view(shard, place)

    def located(self, view: int, error: CorruptError) -> CorruptError:
        """Return the error with shard, row and view of row * V + view before it."""
        row, column = divmod(view, self._num_views)
        where = f"shard {view // self.views_per_shard}, row {row}, view {column}"
        return CorruptError(f"{self._folder}: {where}: {error}")

    def close(self) -> None:
        """Close the files of this process; reading opens them again."""
        self.kept()
        self._state.close()

    def _open_whole(self, shard: int) -> KeptShard:
        """Read and compare all of a shard except its chunks.

        Raises:
            CorruptError: a file is missing, torn or altered.
        """
        records = self._records.of_shard(shard)
        checksums = self._files.read_rows(self._checksums, shard).ravel()
        views = np.zeros((len(checksums), ENTRY.itemsize + self._records.num_bytes), np.uint8)
        name, num_bytes = self._files.name_and_bytes(self._array, shard)
        file = StoredFile.open(self._folder, name, num_bytes)
        try:
            index = read_shard_index(file, name, num_bytes, self.views_per_shard)
        except BaseException:
            file.close()
            raise
        entries = np.zeros(len(checksums), ENTRY)
        entries["offset"], entries["length"] = index[: len(checksums)].T
        entries["crc32c"] = checksums
        views[:, : ENTRY.itemsize] = entries.view(np.uint8).reshape(-1, ENTRY.itemsize)
        views[:, ENTRY.itemsize :] = records
        return KeptShard(file, name, self._longest, views)

    def __del__(self) -> None:
        state = getattr(self, "_state", None)
        if state is not None:
            state.close()


@dataclass(frozen=True, slots=True)
class _PassingShard:
    """A shard of which each view is read by pieces."""

    array: ShardedArray
    shard: int

    def read(self, place: int) -> StoredChunk:
        return self.array.read_pieces(self.shard, place)


class ViewRecords:
    """Records of heatmaps: outputs and affine of a view, and whether the affine mirrors."""

    def __init__(self, layout: StoreLayout, plan: StoredViewPlan, files: ManifestFiles) -> None:
        outputs = ("outputs", "<f4", (layout.dimensions.num_keypoints, 4))
        affine = ("image_to_crop", "<f8", (2, 3))
        self.dtype = np.dtype([outputs, affine, ("is_mirrored", "?")])
        self.num_bytes = self.dtype.itemsize
        self._outputs_bytes = self.dtype["outputs"].itemsize
        self._dimensions = layout.dimensions
        self._plan = plan
        self._files = files

    def of_shard(self, shard: int) -> NDArray[np.uint8]:
        """Return the compared records of all n views of a shard: (n, ``num_bytes``) uint8."""
        outputs = self._files.read_rows("outputs", shard)
        affines = self._plan.read_rows(self._dimensions.shard_rows(shard))
        return self._records(outputs.reshape(-1, *outputs.shape[2:]), affines)

    def of_view(self, shard: int, place: int) -> bytes:
        """Return the record of one view of a shard that was compared before."""
        outputs = self._files.read_piece("outputs", shard, place, self._outputs_bytes)
        first = self._dimensions.shard_rows(shard).start * self._dimensions.num_views
        shape = self.dtype["outputs"].shape
        return self._records(
            np.frombuffer(outputs, "<f4").reshape(1, *shape), self._plan.read_affine(first + place)
        ).tobytes()

    def _records(self, outputs: NDArray[np.float32], affines: bytes) -> NDArray[np.uint8]:
        records = np.zeros(len(outputs), self.dtype)
        records["outputs"] = outputs
        records["image_to_crop"] = np.frombuffer(affines, "<f8").reshape(-1, 2, 3)
        records["is_mirrored"] = determinant_of(records["image_to_crop"]) < 0
        return records.view(np.uint8).reshape(len(records), self.num_bytes)


class ShardFiles:
    """The shards of one teacher, read by view."""

    def __init__(self, layout: StoreLayout, plan: StoredViewPlan, files: ManifestFiles) -> None:
        self._records = ViewRecords(layout, plan, files)
        views_per_shard = layout.dimensions.rows_per_shard * layout.dimensions.num_views
        shard_bytes = (ENTRY.itemsize + self._records.num_bytes) * views_per_shard
        self._heatmaps = ShardedArray(
            layout,
            files,
            "heatmaps",
            "heatmap_crc32c",
            layout.dimensions.view_bytes,
            self._records,
            max_kept=min(KEPT_BYTES // shard_bytes, layout.folder.max_open_files),
        )

    def read(self, views: NDArray[np.int64], heatmaps: NDArray[Any]) -> NDArray[np.void]:
        """Read B views, and return their records: (B,) of ``ViewRecords.dtype``.

        Args:
            views: (B,), row * V + view.
            heatmaps: (B, K, Hh, Wh) of the profile's dtype, C order, to decode into.

        Raises:
            CorruptError: names shard, row and view.
        """
        stored = self._heatmaps
        kept, views_per_shard = stored.kept(), stored.views_per_shard
        records: list[bytes] = []
        view = 0
        try:
            for view, out in zip(views.tolist(), heatmaps, strict=True):
                shard, place = divmod(view, views_per_shard)  # ShardedArray.read, with fewer calls
                data, crc32c, record = (kept.get(shard) or stored.open(shard)).read(place)
                decode_view(data, crc32c, out)
                records.append(record)
        except CorruptError as error:
            raise stored.located(view, error) from error
        return np.frombuffer(b"".join(records), self._records.dtype)

    def close(self) -> None:
        """Close the files of this process; reading opens them again."""
        self._heatmaps.close()
