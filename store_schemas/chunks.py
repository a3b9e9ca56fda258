"""Chunks as bytes: plain ones encoded by zarr in memory, shards here, byte for byte as by zarr.

zarr encodes the views of a shard one after another; here the caller may do it in threads. The shard
index follows its published layout (codec ``sharding_indexed``, version 1.0): at the
shard's end, per inner chunk in C order two little-endian uint64, offset and length, both 2^64 - 1
for an absent chunk, then the crc32c of the index. Its size counts the padding of the last shard.
"""

import math
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
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
from store_schemas.blosc_chunks import decode_blosc
from store_schemas.errors import CorruptError
from store_schemas.identity import canonical_json
from store_schemas.profiles import SHUFFLES

Run = Callable[[Callable[[NDArray[Any]], bytes], Iterable[NDArray[Any]]], Iterable[bytes]]
"""Calls a function on each item and returns the results in order, as ``map`` does."""

CHECKSUM_BYTES = 4
INDEX_ENTRY_BYTES = 16
BLOSC_OVERHEAD = 16
"""Bytes that Blosc adds to data that it could not compress."""
ABSENT = np.uint64(2**64 - 1)
_CHECKSUM = struct.Struct("<I")
_BLOSC_SIZES = struct.Struct("<4xI4xI")
"""Fields of Blosc's header: bytes of the content, and of the chunk."""
_CRC32C_OF_CHECKED = 0x48674BC7
"""The crc32c of any bytes followed by their own crc32c: checking so copies nothing."""
RESTORE = "; run distil store repair, restore the file from a copy, or write the store again"


def encode_chunk(spec: ArraySpec, chunk: int, values: NDArray[Any], run: Run = map) -> bytes:
    """Return the file of one chunk or shard, as zarr writes it.

    Args:
        values: The rows of the chunk without padding, of the array's dtype; of a shard also (n, V)
            objects, one array of that dtype a view, which zeros follow up to the array's length.
        run: Encodes the views of a shard; that of a pool does it in threads.
    """
    if spec.is_sharded:
        is_padded = values.dtype != object  # else views of their own lengths, padded one by one
        values = np.ascontiguousarray(values, spec.numpy_dtype) if is_padded else values
        return _encode_shard(spec, values, run)
    metadata = cpu.Buffer.from_bytes(canonical_json(spec.metadata()))
    objects: dict[str, Buffer] = {"zarr.json": metadata}
    array = zarr.open_array(MemoryStore(objects), mode="r+", zarr_format=3)
    array = array.with_config({"write_empty_chunks": True})
    rows = spec.chunk_rows(chunk)
    array[rows.start : rows.stop] = values
    return objects[spec.chunk_key(chunk)].to_bytes()


def _encode_shard(spec: ArraySpec, values: NDArray[Any], run: Run) -> bytes:
    """Return a shard's file: its views in Morton order as zarr lays them, then the index."""
    settings = spec.blosc or {}

    def encode_view(view: NDArray[Any]) -> bytes:
        if values.dtype == object:
            view = np.pad(view, (0, spec.shape[2] - len(view)))
        data: bytes = blosc.compress(
            view,
            settings["cname"].encode(),
            settings["clevel"],
            SHUFFLES.index(settings["shuffle"]),
            settings["blocksize"],
            settings["typesize"],
        )
        return data + google_crc32c.value(data).to_bytes(CHECKSUM_BYTES, "little")

    rows, num_views = values.shape[:2]
    places = [(r, v) for r, v in _morton_order(spec.rows_per_chunk, num_views) if r < rows]
    index = np.full((spec.rows_per_chunk, num_views, 2), ABSENT, "<u8")
    parts, offset = [], 0
    for place, part in zip(places, run(encode_view, [values[p] for p in places]), strict=True):
        index[place] = offset, len(part)
        parts.append(part)
        offset += len(part)
    entries = index.tobytes()
    checksum = google_crc32c.value(entries).to_bytes(CHECKSUM_BYTES, "little")
    return b"".join([*parts, entries, checksum])


@lru_cache(maxsize=16)
def _morton_order(rows: int, views: int) -> tuple[tuple[int, int], ...]:
    """Return every (row, view) in the order of their interleaved bits, the row's bit first.

    An axis whose bits are used up leaves the higher places to the other one, as in Neuroglancer's
    compressed Morton code, which zarr follows.
    """
    bits = [(n - 1).bit_length() for n in (rows, views)]

    def code(place: tuple[int, int]) -> int:
        value = position = 0
        for bit in range(max(bits)):
            for axis in (0, 1):
                if bit < bits[axis]:
                    value |= (place[axis] >> bit & 1) << position
                    position += 1
        return value

    return tuple(sorted(((r, v) for r in range(rows) for v in range(views)), key=code))


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
    if len(data) < CHECKSUM_BYTES or google_crc32c.value(data) != _CRC32C_OF_CHECKED:
        computed = google_crc32c.value(data[:-CHECKSUM_BYTES])
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
        crc32c: Checksum of this row and view in ``heatmap_crc32c``: a whole chunk of another row
            has a valid checksum of its own.
        out: (K, Hh, Wh) uint8 or float16, contiguous.

    Raises:
        CorruptError: altered, of another row, or of another size; ``out`` may be half written.
    """
    length = len(data) - CHECKSUM_BYTES
    if google_crc32c.value(data) != _CRC32C_OF_CHECKED or length < 0:
        check_crc32c(data, "the chunk")
    stored: int = _CHECKSUM.unpack_from(data, length)[0]
    if stored != crc32c:
        raise CorruptError(
            f"the chunk must be the one with crc32c {crc32c:08x}, got {stored:08x}, "
            f"which is another row's{RESTORE}"
        )
    header = _BLOSC_SIZES.unpack_from(data) if length >= BLOSC_OVERHEAD else (0, 0)
    if header != (out.nbytes, length):
        raise CorruptError(
            f"the chunk must hold {out.nbytes} bytes in {length}, its Blosc header has "
            f"{header[0]} in {header[1]}{RESTORE}"
        )
    try:
        decode_blosc(data, out)  # ends before the checksum, where the header states
    except (RuntimeError, ValueError) as error:
        raise CorruptError(f"the chunk cannot be decoded: {error}{RESTORE}") from error
