"""Files of a store that stay open while pieces of them are read, whole or by the chunk."""

import os
from contextlib import suppress
from typing import Self

from pipeline.teacher_store.folder import StoreFolder
from store_schemas.chunks import (
    ABSENT,
    BLOSC_OVERHEAD,
    CHECKSUM_BYTES,
    RESTORE,
    parse_shard_index,
    shard_index_bytes,
)
from store_schemas.errors import CorruptError

_ABSENT = int(ABSENT)


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


class ShardFile:
    """A shard of one array: its chunks, as they are packed, by their place; 16 bytes of each."""

    __slots__ = ("_file", "_index", "_longest", "_name")

    def __init__(self, name: str, file: StoredFile, index: memoryview, longest: int) -> None:
        """Use ``ShardFile.open``."""
        self._name = name
        self._file = file
        self._index = index
        """uint64, offset and length of every chunk, one after the other."""
        self._longest = longest

    @classmethod
    def open(
        cls, folder: StoreFolder, name: str, num_bytes: int, num_chunks: int, chunk_bytes: int
    ) -> Self:
        """Open a shard that must have so many bytes, and read its index.

        Args:
            chunk_bytes: Of one chunk that is not packed.

        Raises:
            CorruptError: the file is missing, torn or of another length, or its index is altered.
        """
        index_bytes = shard_index_bytes(num_chunks)
        if num_bytes < index_bytes:
            raise CorruptError(f"{name} must have at least {index_bytes} bytes, got {num_bytes}")
        file = StoredFile.open(folder, name, num_bytes)
        try:
            data = file.read(index_bytes, num_bytes - index_bytes)
            index = parse_shard_index(data, num_bytes, name)
        except BaseException:
            file.close()
            raise
        return cls(name, file, index.ravel().data, chunk_bytes + BLOSC_OVERHEAD + CHECKSUM_BYTES)

    def read(self, place: int) -> bytes:
        """Return the chunk at a place.

        Raises:
            CorruptError: there is none, it is too long, or it cannot be read.
        """
        offset, length = self._index[2 * place], self._index[2 * place + 1]
        if offset == _ABSENT:
            raise CorruptError(f"the chunk is missing from the index of {self._name}{RESTORE}")
        if length > self._longest:
            raise CorruptError(
                f"a chunk of {self._name} must have at most {self._longest} bytes, got {length}"
                f"{RESTORE}"
            )
        return self._file.read(length, offset)

    def close(self) -> None:
        """Close it; once."""
        self._file.close()
