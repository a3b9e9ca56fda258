"""Chunks as bytes: encoded by zarr in memory, decoded here.

The shard index follows its published layout (codec ``sharding_indexed``, version 1.0): at the
shard's end, per inner chunk in C order two little-endian uint64, offset and length, both 2^64 - 1
for an absent chunk, then the crc32c of the index. Its size counts the padding of the last shard.
"""

import math
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.buffer import cpu
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from store_schemas.array_spec import ArraySpec
from store_schemas.errors import CorruptError
from store_schemas.identity import canonical_json

blosc.use_threads = False  # one thread per reading process: they are many

CHECKSUM_BYTES = 4
INDEX_ENTRY_BYTES = 16
BLOSC_OVERHEAD = 16
"""Bytes by which Blosc may exceed what it could not compress."""
ABSENT = np.uint64(2**64 - 1)
RESTORE = "; restore the file from a copy, or write the store again"


def encode_chunk(spec: ArraySpec, chunk: int, values: NDArray[Any]) -> bytes:
    """Return the file of one chunk or shard, encoded by zarr.

    Args:
        values: The rows of the chunk without padding, of the array's dtype.
    """
    metadata = cpu.Buffer.from_bytes(canonical_json(spec.metadata()))
    objects: dict[str, Buffer] = {"zarr.json": metadata}
    array = zarr.open_array(MemoryStore(objects), mode="r+", zarr_format=3)
    array = array.with_config({"write_empty_chunks": True})
    rows = spec.chunk_rows(chunk)
    array[rows.start : rows.stop] = values
    return objects[spec.chunk_key(chunk)].to_bytes()


def plain_chunk_bytes(spec: ArraySpec) -> int:
    """Return the length of every chunk file of an array that is not sharded."""
    return spec.rows_per_chunk * spec.bytes_per_row + CHECKSUM_BYTES


def decode_plain_chunk(spec: ArraySpec, chunk: int, data: bytes) -> NDArray[Any]:
    """Return the rows of one chunk of an array that is not sharded, read-only.

    Raises:
        CorruptError: the length or the checksum is wrong.
    """
    where = f"{spec.path}/{spec.chunk_key(chunk)}"
    expected = plain_chunk_bytes(spec)
    if len(data) != expected:
        raise CorruptError(f"{where} must have {expected} bytes, got {len(data)}{RESTORE}")
    check_crc32c(data, where)
    rows = len(spec.chunk_rows(chunk))
    count = rows * math.prod(spec.shape[1:])
    return np.frombuffer(data, spec.numpy_dtype, count).reshape(rows, *spec.shape[1:])


def check_crc32c(data: bytes, where: str) -> int:
    """Return the crc32c in the last four bytes after comparing it with that of the others.

    Raises:
        CorruptError: they differ, or there are no four bytes.
    """
    stored = int.from_bytes(data[-CHECKSUM_BYTES:], "little")
    computed = google_crc32c.value(data[:-CHECKSUM_BYTES])
    if len(data) < CHECKSUM_BYTES or computed != stored:
        raise CorruptError(f"{where} must have crc32c {stored:08x}, got {computed:08x}{RESTORE}")
    return stored


def shard_index_bytes(num_views: int) -> int:
    """Return the length of the index of a shard with that many inner chunks."""
    return num_views * INDEX_ENTRY_BYTES + CHECKSUM_BYTES


def parse_shard_index(data: bytes, shard_bytes: int, where: str) -> NDArray[np.uint64]:
    """Return offset and length of every inner chunk.

    Args:
        data: The index, checksum included.
        shard_bytes: Length of the whole shard.
        where: Name of the shard for messages.

    Returns:
        (views, 2) uint64 in C order, both ``ABSENT`` for an absent chunk, else inside the shard.

    Raises:
        CorruptError: the checksum is wrong, or an entry lies outside the shard.
    """
    check_crc32c(data, f"the index of {where}")
    entries = np.frombuffer(data, "<u8", (len(data) - CHECKSUM_BYTES) // 8).reshape(-1, 2)
    present = (entries != ABSENT).any(axis=1)
    end = shard_bytes - len(data)
    offset, length = entries[present].T
    # one comparison at a time: a sum of two uint64 could wrap
    if (offset > end).any() or (length > end - np.minimum(offset, end)).any():
        raise CorruptError(f"the index of {where} points outside the shard{RESTORE}")
    return entries.astype(np.uint64)


def inner_chunk_crc32c(shard: bytes, num_views: int, where: str) -> NDArray[np.uint32]:
    """Return the crc32c at the end of each inner chunk, 0 for an absent one: (views,) uint32."""
    index = parse_shard_index(shard[-shard_index_bytes(num_views) :], len(shard), where)
    checksums = np.zeros(num_views, np.uint32)
    for view, (offset, length) in enumerate(index.tolist()):
        if offset != int(ABSENT):
            end = offset + length
            checksums[view] = int.from_bytes(shard[end - CHECKSUM_BYTES : end], "little")
    return checksums


def decode_view(data: bytes, crc32c: int, out: NDArray[Any]) -> None:
    """Decode one inner chunk of ``heatmaps`` into place.

    Args:
        data: The chunk, checksum included.
        crc32c: What ``heatmap_crc32c`` says of this row and view: a whole chunk of another row
            has a valid checksum of its own.
        out: (K, Hh, Wh) uint8 or float16, contiguous.

    Raises:
        CorruptError: altered, of another row, or of another size; ``out`` may be half written.
    """
    stored = check_crc32c(data, "the chunk")
    if stored != crc32c:
        raise CorruptError(
            f"the chunk must be the one with crc32c {crc32c:08x}, got {stored:08x}, "
            f"which is another row's{RESTORE}"
        )
    payload = data[:-CHECKSUM_BYTES]
    raw = int.from_bytes(payload[4:8], "little")
    packed = int.from_bytes(payload[12:16], "little")
    if len(payload) < BLOSC_OVERHEAD or raw != out.nbytes or packed != len(payload):
        raise CorruptError(
            f"the chunk must hold {out.nbytes} bytes in {len(payload)}, its Blosc header says "
            f"{raw} in {packed}{RESTORE}"
        )
    try:
        blosc.decompress(payload, out)
    except (RuntimeError, ValueError) as error:
        raise CorruptError(f"the chunk cannot be decoded: {error}{RESTORE}") from error
