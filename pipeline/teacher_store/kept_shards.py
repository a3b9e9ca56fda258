"""The chunks of a sharded array, by view, each with what it takes to check and to use it.

A process keeps some shards ready: their index, checksums and whatever else is read of each view
are in memory, and their file is open. What it keeps does not grow with the store: where there are
more shards, views of the others are read piece by piece. All of it belongs to one process; after a
fork it is made again.
"""

import os
import struct
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.opening import StoreLayout
from pipeline.teacher_store.shard_files import (
    ManifestFiles,
    StoredFile,
    longest_chunk,
    read_shard_entry,
    read_shard_index,
    refused_entry,
)
from store_schemas.chunks import CHECKSUM_BYTES
from store_schemas.errors import CorruptError

ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8"), ("crc32c", "<u4"), ("padding", "V4")])
"""What a kept shard has in memory of each chunk."""
_ENTRY_BYTES = ENTRY.itemsize
_unpack_entry = struct.Struct("<QQI4x").unpack_from  # an item of a numpy array takes far longer

StoredChunk = tuple[bytes, int, bytes]
"""A chunk as it is packed, the crc32c that it must have, and its record."""


class Records(Protocol):
    """What is read of every view beside its chunk."""

    num_bytes: int
    """Of one view."""

    def of_shard(self, shard: int) -> NDArray[np.uint8]:
        """Return those of all views of a shard, compared: (views, num_bytes), or (1, 0)."""
        ...

    def of_view(self, shard: int, place: int) -> bytes:
        """Return that of one view of a shard that was compared before."""
        ...


class NoRecords:
    """Of an array whose chunks are all there is to read."""

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
            views: (n, bytes) uint8: of each view an ``ENTRY``, then its record. One piece of
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
    """By shard, the first opened first; reads are random, so the last used would be no better."""
    compared: set[int] = field(default_factory=set)
    """Shards whose index, checksums and records were compared."""
    last_missed: int | None = None
    """The shard that was asked for last of those that were not kept."""

    def close(self) -> None:
        while self.kept:
            self.kept.popitem()[1].close()


class ShardedArray:
    """One sharded array of a teacher.

    Args:
        array: Its name.
        checksums: Name of the array of its chunks' crc32c.
        chunk_bytes: Of a chunk that is not packed.
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
        self._longest = longest_chunk(chunk_bytes)
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
        """Make a shard ready that is not kept, or leave it to be read by pieces.

        Of many shards in random order hardly any is asked for again before it is dropped, and to
        make it ready for one view takes ten times as long as to read the pieces of that view. Asked
        for twice in a row, a shard is being read in order.

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
        """Return the error of row * V + view as one that says where it is."""
        row, column = divmod(view, self._num_views)
        where = f"shard {view // self.views_per_shard}, row {row}, view {column}"
        return CorruptError(f"{self._folder}: {where}: {error}")

    def close(self) -> None:
        """Close the files of this process; reading opens them again."""
        self.kept()
        self._state.close()

    def _open_whole(self, shard: int) -> KeptShard:
        """Compare all of a shard but its chunks.

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
    """A shard whose views are read by pieces."""

    array: ShardedArray
    shard: int

    def read(self, place: int) -> StoredChunk:
        return self.array.read_pieces(self.shard, place)


def bytes_kept_per_view(records: Records) -> int:
    """Return what a kept shard has in memory of every view."""
    return ENTRY.itemsize + records.num_bytes
