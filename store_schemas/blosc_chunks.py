"""Decode Blosc chunks into place: what is one block of zstd with a context that is kept.

Blosc has libzstd make a context for every call, and libzstd then asks the processor what it can do
(``cpuid``). A virtual machine's hypervisor answers that, which takes a third of the time of
decoding 5 KB. All else is left to numcodecs.

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

blosc.use_threads = False  # one thread per reading process: they are many

_HEADER = struct.Struct("<BxBxIIIII")
"""Format, flags, content, block and chunk; then of one block its start and its stream's length."""
_FORMAT = 2
_ONE_STREAM_OF_ZSTD = 4 << 5 | 1 << 4
"""Flags: the compressor, and that a block is not split; neither shuffled nor stored as it is."""
_BLOCK_START = 20

_own = threading.local()  # a context is of one thread


def decode_blosc(data: bytes, out: NDArray[Any]) -> None:
    """Decode a chunk.

    Args:
        data: The chunk; what follows its end, as its header says it, is ignored.
        out: Of the content's size, C order.

    Raises:
        ValueError or RuntimeError: it cannot be decoded; ``out`` may be half written.
    """
    if len(data) >= _HEADER.size:
        version, flags, content, block, end, start, length = _HEADER.unpack_from(data)
        is_one_block = content <= block and start == _BLOCK_START and _HEADER.size + length == end
        if version == _FORMAT and flags == _ONE_STREAM_OF_ZSTD and is_one_block:
            frame = memoryview(data)[_HEADER.size : end]
            try:
                # asked before anything as large as the frame says is made
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
