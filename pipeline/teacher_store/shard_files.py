"""Files of a teacher's shards: read whole and compared with the manifest, or a piece at a time."""

import os
import struct
from contextlib import closing, suppress
from hashlib import sha256
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.storage.folder import StoreFolder
from pipeline.teacher_store.opening import StoreLayout
from store_schemas.chunks import (
    ABSENT,
    BLOSC_OVERHEAD,
    CHECKSUM_BYTES,
    INDEX_ENTRY_BYTES,
    RESTORE,
    decode_plain_chunk,
    parse_shard_index,
    shard_index_bytes,
)
from store_schemas.errors import CorruptError
from store_schemas.manifest import Manifest
from store_schemas.teacher_store import Status

_ABSENT = int(ABSENT)
_ENTRY = struct.Struct("<QQ")


class StoredFile:
    """An open file, read by ``pread``: ``mmap`` would end the process if it were truncated."""

    __slots__ = ("_descriptor", "_name")

    def __init__(self, name: str, descriptor: int) -> None:
        """Use ``StoredFile.open``."""
        self._name = name
        self._descriptor = descriptor

    @classmethod
    def open(cls, folder: StoreFolder, name: str, num_bytes: int) -> Self:
        """Open a file that must have ``num_bytes``.

        Raises:
            CorruptError: it is missing, no regular file, or has another length.
        """
        try:
            file = cls(name, folder.open_descriptor(name))
        except FileNotFoundError:
            raise CorruptError(f"{name} is missing{RESTORE}") from None
        size = os.fstat(file._descriptor).st_size
        if size != num_bytes:
            file.close()
            raise CorruptError(f"{name} must have {num_bytes} bytes, got {size}{RESTORE}")
        return file

    def read(self, length: int, offset: int) -> bytes:
        """Return ``length`` bytes from an offset on.

        Raises:
            CorruptError: the file was truncated meanwhile, or the disk cannot read them.
        """
        try:
            data = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise CorruptError(
                f"{self._name} cannot be read at {offset}: {error.strerror}{RESTORE}"
            ) from error
        if len(data) != length:
            raise CorruptError(
                f"{self._name} must have {length} bytes at {offset}, got {len(data)}{RESTORE}"
            )
        return data

    def close(self) -> None:
        """Close it; once."""
        with suppress(OSError):
            os.close(self._descriptor)


def read_shard_index(
    file: StoredFile, name: str, num_bytes: int, num_chunks: int
) -> NDArray[np.uint64]:
    """Return offset and length of every chunk of a shard: (num_chunks, 2).

    Raises:
        CorruptError: the shard is too short for its index, or the index is altered.
    """
    index_bytes = shard_index_bytes(num_chunks)
    if num_bytes < index_bytes:
        raise CorruptError(f"{name} must have at least {index_bytes} bytes, got {num_bytes}")
    data = file.read(index_bytes, num_bytes - index_bytes)
    return parse_shard_index(data, num_bytes, name)


def read_shard_entry(
    file: StoredFile, name: str, num_bytes: int, num_chunks: int, place: int
) -> tuple[int, int]:
    """Return offset and length of one chunk, without comparing the index's checksum.

    Raises:
        CorruptError: it lies outside the shard; and as ``StoredFile.read``.
    """
    start = num_bytes - shard_index_bytes(num_chunks) + place * INDEX_ENTRY_BYTES
    offset, length = _ENTRY.unpack(file.read(INDEX_ENTRY_BYTES, start))
    if num_bytes < offset != _ABSENT:
        raise CorruptError(f"the index of {name} points outside the shard{RESTORE}")
    return offset, length


def longest_chunk(chunk_bytes: int) -> int:
    """Return the largest length of a compressed chunk in a shard.

    Args:
        chunk_bytes: Length of the chunk before compression.
    """
    return chunk_bytes + BLOSC_OVERHEAD + CHECKSUM_BYTES


def refused_entry(name: str, offset: int, length: int, longest: int) -> CorruptError:
    """Return the error of an index entry whose length exceeds the longest: absent, or altered."""
    if offset == _ABSENT:
        return CorruptError(f"the chunk is missing from the index of {name}{RESTORE}")
    return CorruptError(
        f"a chunk of {name} must have at most {longest} bytes, got {length}{RESTORE}"
    )


class ManifestFiles:
    """The files of a teacher's shards, with the lengths and digests that the manifest has."""

    def __init__(self, layout: StoreLayout, manifest: Manifest) -> None:
        self._folder = layout.folder
        self._specs = layout.shard_specs
        self._manifest = manifest
        self._columns = {name: column for column, name in enumerate(self._specs)}

    def name_and_bytes(self, array: str, shard: int) -> tuple[str, int]:
        """Return name and length of the file of an array's shard."""
        length = int(self._manifest.lengths[shard, self._columns[array]])
        return self._specs[array].chunk_name(shard), length

    def read_rows(self, array: str, shard: int) -> NDArray[Any]:
        """Return a shard's rows of an array that is not sharded, compared with the manifest.

        Raises:
            CorruptError: missing, torn or altered.
        """
        name, num_bytes = self.name_and_bytes(array, shard)
        try:
            data = self._folder.read(name, num_bytes)
        except FileNotFoundError:
            raise CorruptError(f"{name} is missing{RESTORE}") from None
        rows = decode_plain_chunk(self._specs[array], shard, data)
        if sha256(data).digest() != self._manifest.sha256[shard, self._columns[array]].tobytes():
            raise CorruptError(f"{name} must have the sha256 of the manifest{RESTORE}")
        return rows

    def read_piece(self, array: str, shard: int, place: int, length: int) -> bytes:
        """Return the bytes of one view of an array that is not sharded, without comparing them.

        Args:
            place: Index of the view in the shard.
            length: Bytes of one view.

        Raises:
            CorruptError: missing or torn.
        """
        file = StoredFile.open(self._folder, *self.name_and_bytes(array, shard))
        with closing(file):
            return file.read(length, place * length)


def read_status(layout: StoreLayout, manifest: Manifest, files: ManifestFiles) -> NDArray[np.uint8]:
    """Return the status of every view: (N, V) uint8, read-only; of absent shards NOT_WRITTEN.

    Raises:
        CorruptError: a file is missing, torn or altered, or contradicts the manifest; names shard
            and rows.
    """
    dimensions = layout.dimensions
    status = np.zeros((dimensions.num_instances, dimensions.num_views), np.uint8)
    for shard in np.flatnonzero(manifest.is_present).tolist():
        rows = dimensions.shard_rows(shard)
        if layout.folder.is_remote and manifest.status_counts[shard, Status.OK] == (
            len(rows) * dimensions.num_views
        ):
            status[rows.start : rows.stop] = Status.OK  # a request per shard would take long
            continue
        where = f"{layout.folder}: shard {shard}, rows {rows.start} to {rows.stop - 1}"
        try:
            found = files.read_rows("status", shard)
        except CorruptError as error:
            raise CorruptError(f"{where}: {error}") from error
        counts = np.bincount(found.ravel(), minlength=len(Status))
        if counts.tolist() != manifest.status_counts[shard].tolist():
            raise CorruptError(
                f"{where}: views by status must be {manifest.status_counts[shard].tolist()}, "
                f"got {counts.tolist()}{RESTORE}"
            )
        status[rows.start : rows.stop] = found
    status.flags.writeable = False
    return status
