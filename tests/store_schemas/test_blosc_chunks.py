"""Chunks are decoded as numcodecs decodes them, whoever does it."""

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import blosc
from numpy.typing import NDArray

from store_schemas.chunks import decode_blosc

BLOCK = 24
"""Where the stream of a chunk of one block begins."""


def values(seed: int, size: int = 5000, dtype: str = "uint8") -> NDArray[np.generic]:
    """Return values that compress: runs of few levels."""
    random = np.random.default_rng(seed)
    return np.repeat(random.integers(0, 9, size // 4 + 1), 4)[:size].astype(dtype)


def pack(content: NDArray[np.generic], name: str = "zstd", **changes: int) -> bytes:
    arguments = {"clevel": 5, "shuffle": 0, "blocksize": 0} | changes
    packed: bytes = blosc.compress(content, name.encode(), **arguments)
    return packed


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**16),
    size=st.integers(1, 70_000),
    dtype=st.sampled_from(["uint8", "float16"]),
    name=st.sampled_from(["zstd", "lz4", "lz4hc", "blosclz", "zlib"]),
    clevel=st.integers(0, 9),
    shuffle=st.integers(0, 2),
    blocksize=st.sampled_from([0, 4096, 65536]),
    behind=st.binary(max_size=5),
)
def test_every_chunk_is_what_was_packed(
    seed: int,
    size: int,
    dtype: str,
    name: str,
    clevel: int,
    shuffle: int,
    blocksize: int,
    behind: bytes,
) -> None:
    content = values(seed, size, dtype)
    out = np.empty_like(content)
    data = pack(content, name, clevel=clevel, shuffle=shuffle, blocksize=blocksize)
    decode_blosc(data + behind, out)
    np.testing.assert_array_equal(out, content, strict=True)


def test_heatmaps_of_zstd_are_decoded_by_the_kept_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests below would be of numcodecs."""
    monkeypatch.setattr(blosc, "decompress", None)
    content = values(0, 17 * 64 * 48).reshape(17, 64, 48)
    out = np.empty_like(content)
    decode_blosc(pack(content), out)
    np.testing.assert_array_equal(out, content, strict=True)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_an_altered_chunk_is_an_error_or_what_numcodecs_reads(data: st.DataObject) -> None:
    content = values(1)
    packed = bytearray(pack(content))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(16, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    outs: list[bytes | None] = []
    for decode in (decode_blosc, blosc.decompress):
        out = np.zeros_like(content)
        try:
            decode(bytes(packed), out)
            outs.append(out.tobytes())
        except (RuntimeError, ValueError):
            outs.append(None)
    assert outs[0] in (None, outs[1])


@pytest.mark.parametrize("size", [0, 4999, 5001, 2**40])
def test_a_stream_of_another_size_is_an_error_before_anything_is_allocated(size: int) -> None:
    """The stream says what it holds; a context would allocate as much."""
    content = values(2)
    packed = pack(content)
    # the frame: magic, a descriptor that says eight bytes of size and one segment, the size
    frame = packed[BLOCK : BLOCK + 4] + b"\xe0" + struct.pack("<Q", size) + packed[BLOCK + 7 :]
    assert zstandard.frame_content_size(frame) == size
    with pytest.raises((RuntimeError, ValueError)):
        decode_blosc(rebuilt(packed, frame), np.empty_like(content))


def test_bytes_behind_the_stream_are_an_error() -> None:
    content = values(3)
    packed = pack(content)
    with pytest.raises((RuntimeError, ValueError)):
        decode_blosc(rebuilt(packed, packed[BLOCK:] + b"more"), np.empty_like(content))


def rebuilt(packed: bytes, frame: bytes) -> bytes:
    """Return a chunk of one block with another stream."""
    content, block = struct.unpack_from("<II", packed, 4)
    sizes = struct.pack("<IIIII", content, block, BLOCK + len(frame), 20, len(frame))
    return packed[:4] + sizes + frame


def test_threads_decode_side_by_side() -> None:
    contents = [values(seed, 50_000) for seed in range(40)]
    chunks = [pack(content) for content in contents]

    def decode(chunk: bytes) -> NDArray[np.generic]:
        out = np.empty_like(contents[0])
        decode_blosc(chunk, out)
        return out

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decode, chunks * 10))
    for out, content in zip(found, contents * 10, strict=True):
        np.testing.assert_array_equal(out, content, strict=True)
