"""Files of a store of which pieces are read, and the indexes of those that are shards."""

import os
import struct
from contextlib import suppress
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.storage.folder import StoreFolder
from store_schemas.chunks import (
    ABSENT,
    BLOSC_OVERHEAD,
    CHECKSUM_BYTES,
    INDEX_ENTRY_BYTES,
    RESTORE,
    parse_shard_index,
    shard_index_bytes,
)
from store_schemas.errors import CorruptError

_ABSENT = int(ABSENT)
_ENTRY = struct.Struct("<QQ")


class StoredFile:
    """Reads by ``pread``: ``mmap`` would end the process when the file is truncated."""

    __slots__ = ("_descriptor", "_name")

    def __init__(self, name: str, descriptor: int) -> None:
        """Use ``StoredFile.open``."""
        self._name = name
        self._descriptor = descriptor

    @classmethod
    def open(cls, folder: StoreFolder, name: str, num_bytes: int) -> Self:
        """Open a file that must have so many bytes.

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
        """Return so many bytes from an offset on.

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
    """Return the most bytes that a chunk takes in a shard.

    Args:
        chunk_bytes: Of a chunk that is not packed.
    """
    return chunk_bytes + BLOSC_OVERHEAD + CHECKSUM_BYTES


def refused_entry(name: str, offset: int, length: int, longest: int) -> CorruptError:
    """Return what is wrong with an entry of a length over the longest, as that of no chunk has."""
    if offset == _ABSENT:
        return CorruptError(f"the chunk is missing from the index of {name}{RESTORE}")
    return CorruptError(
        f"a chunk of {name} must have at most {longest} bytes, got {length}{RESTORE}"
    )
