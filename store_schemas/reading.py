"""Read metadata and plain arrays of a store by name, each compared with what the schema implies.

No zarr object is made: the metadata must be the very one that schema and identity imply, so that
plain reads at computed offsets are enough.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from store_schemas.array_spec import ArraySpec
from store_schemas.chunks import RESTORE, decode_plain_chunk, plain_chunk_bytes
from store_schemas.errors import CorruptError
from store_schemas.identity import canonical_json
from store_schemas.metadata import MAX_METADATA_BYTES, check_metadata, parse_json


class StoreFiles(Protocol):
    """The files of a store, by their name below its root."""

    def __str__(self) -> str:
        """Return the location, for messages."""
        ...

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: there is none.
            CorruptError: it is longer than ``max_bytes``, or no plain file.
        """
        ...

    def size(self, name: str) -> int | None:
        """Return a file's length, None where there is none."""
        ...

    def sha256(self, name: str) -> str:
        """Return a file's sha256 in hexadecimal, or raise FileNotFoundError."""
        ...


def check_document(files: StoreFiles, path: str, expected: dict[str, Any]) -> None:
    """Compare a node's ``zarr.json`` with the expected one.

    Raises:
        CorruptError: it is missing.
        SchemaError: it differs; names the field.
    """
    name = f"{path}/zarr.json"
    try:
        data = files.read(name, MAX_METADATA_BYTES)
    except FileNotFoundError:
        raise CorruptError(f"{name} is missing{RESTORE}") from None
    if data != canonical_json(expected):  # equal bytes need no comparison by field
        check_metadata(parse_json(data, name), expected, name)


def read_array(files: StoreFiles, spec: ArraySpec) -> NDArray[Any]:
    """Return a whole array that is not sharded, in the machine's byte order, read-only.

    Raises:
        CorruptError: a chunk is missing, torn or altered.
        SchemaError: its metadata is not the spec's.
    """
    chunks = read_chunks(files, spec)
    if spec.num_chunks == 1:
        whole = next(chunks).astype(np.dtype(spec.dtype), copy=False)
    else:
        _require_sizes(files, spec)  # before memory for the declared shape is reserved
        whole = np.empty(spec.shape, np.dtype(spec.dtype))
        for chunk, rows in enumerate(chunks):
            start = spec.chunk_rows(chunk).start
            whole[start : start + len(rows)] = rows
    whole.flags.writeable = False
    return whole


def read_chunks(files: StoreFiles, spec: ArraySpec) -> Iterator[NDArray[Any]]:
    """Yield the rows of each chunk of an array that is not sharded: little-endian, read-only.

    Raises:
        CorruptError: a chunk is missing, torn or altered.
        SchemaError: its metadata is not the spec's.
    """
    check_document(files, spec.path, spec.metadata())
    for chunk in range(spec.num_chunks):
        rows = read_chunk(files, spec, chunk)
        if spec.dtype == "bool" and rows.size and rows.view(np.uint8).max() > 1:
            raise CorruptError(f"{spec.path} must hold bytes 0 and 1{RESTORE}")
        yield rows


def read_chunk(files: StoreFiles, spec: ArraySpec, chunk: int) -> NDArray[Any]:
    """Return the rows of one chunk of an array that is not sharded, or raise CorruptError."""
    name = spec.chunk_name(chunk)
    try:
        data = files.read(name, plain_chunk_bytes(spec))
    except FileNotFoundError:
        raise CorruptError(f"{name} is missing{RESTORE}") from None
    return decode_plain_chunk(spec, chunk, data)


def _require_sizes(files: StoreFiles, spec: ArraySpec) -> None:
    for name in map(spec.chunk_name, range(spec.num_chunks)):
        size, expected = files.size(name), plain_chunk_bytes(spec)
        if size is None:
            raise CorruptError(f"{name} is missing, or no regular file{RESTORE}")
        if size != expected:
            raise CorruptError(f"{name} must have {expected} bytes, got {size}{RESTORE}")
