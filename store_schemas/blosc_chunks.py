"""Decode Blosc chunks into place; a chunk that is one block of zstd with a context that is kept.

Blosc lets libzstd make a context for every call, and libzstd then executes ``cpuid``. In a virtual
machine the hypervisor intercepts it, which takes a third of the time of decoding 5 KB. All other
chunks are decoded by numcodecs.

The bytes are those of Blosc 1 (https://github.com/Blosc/c-blosc, README_CHUNK_FORMAT.rst): versions
of format and compressor, flags, size of a value; then little-endian uint32 the bytes of the
content, of a block, and of the chunk; the start of every block; and in a block the length of the
compressed stream before it.
"""

import struct
import threading
from typing import Any

import zstandard
from numcodecs import blosc
from numpy.typing import NDArray

blosc.use_threads = False  # there are many reading processes, each with one thread

_HEADER = struct.Struct("<BxBxIIIII")
"""Format, flags; bytes of content, block and chunk; start and stream length of the one block."""
_FORMAT = 2
_ONE_STREAM_OF_ZSTD = 4 << 5 | 1 << 4
"""Flags: zstd, blocks not split; neither shuffled nor stored without compression."""
_BLOCK_START = 20

_own = threading.local()  # a context belongs to one thread


def decode_blosc(data: bytes, out: NDArray[Any]) -> None:
    """Decode a chunk.

    Args:
        data: The chunk; bytes after the end that its header states are ignored.
        out: Array of the content's size, C order.

    Raises:
        ValueError or RuntimeError: it cannot be decoded; ``out`` may be half written.
    """
    if len(data) >= _HEADER.size:
        version, flags, content, block, end, start, length = _HEADER.unpack_from(data)
        is_one_block = content <= block and start == _BLOCK_START and _HEADER.size + length == end
        if version == _FORMAT and flags == _ONE_STREAM_OF_ZSTD and is_one_block:
            frame = memoryview(data)[_HEADER.size : end]
            try:
                # checked before memory of the frame's stated size is reserved
                if content == out.nbytes == zstandard.frame_content_size(frame):
                    values = _context().decompress(frame, allow_extra_data=False)
                    out.data.cast("B")[:] = values
                    return
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from error
    blosc.decompress(data, out)


def _context() -> zstandard.ZstdDecompressor:
    try:
        context: zstandard.ZstdDecompressor = _own.context
    except AttributeError:
        context = _own.context = zstandard.ZstdDecompressor()
    return context
