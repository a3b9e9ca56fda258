"""Image files: their names, their sizes and their pixels, read strictly.

An image is decoded whole or not at all: half a photograph, filled up with grey, would be cached and
trained on without an error. EXIF rotation is ignored, as annotations belong to the stored pixels.
A file is read once, so that a digest is always that of the bytes that were decoded.
"""

import hashlib
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import ImageError, PeopleError

# Pillow warns where it guesses (a decompression bomb, a malformed container); a guess is no image.
# Set once and for Pillow alone: `warnings.catch_warnings` is not safe in decoding threads.
warnings.filterwarnings("error", module=r"PIL\.")

# No format whose reader starts another program (EPS), or renders (WMF).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# Modes of 8 bits a channel or fewer; Pillow would clip the others to white instead of scaling them.
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_MOST_PIXELS = 89_478_485  # Pillow's own threshold of a decompression bomb: 0.25 GiB of RGB

_Result = TypeVar("_Result")


class FileStamp(NamedTuple):
    """Properties by which a file is recognised without reading it."""

    inode: int
    num_bytes: int
    mtime_ns: int


class ImageBytes(NamedTuple):
    """A file's bytes, read at once."""

    content: bytes
    stamp: FileStamp | None
    """None: the file changed while it was read."""

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of these bytes: 32 bytes."""
        return hashlib.sha256(self.content).digest()


def decode_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file whole to (H, W, 3) uint8 RGB, or raise ``ImageError``.

    Greyscale, palette, CMYK and transparent images are converted.
    """
    return decode_image_bytes(read_image_bytes(path).content, path)


def read_image_bytes(path: Path) -> ImageBytes:
    """Read an image file's bytes, undecoded, or raise ``ImageError``."""
    try:
        with path.open("rb") as file:
            before = _stamp(file)
            content = file.read()
            after = _stamp(file)
    except (OSError, ValueError) as cause:
        raise ImageError(_unreadable(path, cause)) from cause
    return ImageBytes(content, before if before == after else None)


def decode_image_bytes(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Decode the bytes of an image file whole, or raise ``ImageError``.

    path: the file that they were read from, for the message.
    Returns (H, W, 3) uint8, RGB, as ``decode_image`` does.
    """
    return _read(path, io.BytesIO(content), _pixels)


def decode_upright(path: Path) -> NDArray[np.uint8]:
    """Decode an image file as ``decode_image``, turned as its EXIF orientation says.

    For photographs without annotations: a telephone held upright stores its pictures lying.
    """
    source = io.BytesIO(read_image_bytes(path).content)
    return _read(path, source, lambda image: _pixels(ImageOps.exif_transpose(image)))


def image_size_hw(path: Path) -> tuple[int, int]:
    """Read an image's size from its header, EXIF rotation ignored, or raise ``ImageError``."""
    return _read(path, path, lambda image: (image.height, image.width))


def sha256_file(path: Path) -> str:
    """Digest a file's bytes, as 64 hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as cause:
        raise ImageError(_unreadable(path, cause)) from cause


def resolve_image(folder: Path, name: str) -> Path:
    """Join an image's name to its folder; refuse a name that leaves the folder.

    The check is on the name alone: folder and images may be symbolic links. A backslash is a plain
    character.
    """
    return folder / checked_image_name(name)


def checked_image_name(name: str) -> str:
    """Return an image's name, or raise PeopleError if no file of the folder can have it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        reason = "leaves the image folder"
    elif not path.parts:
        reason = "is empty"
    elif "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        reason = "holds a character that no file name can hold"
    else:
        return name
    raise PeopleError(
        f"image name {name!r} {reason}: expected a path relative to the image folder, without '..'"
    )


def _stamp(file: BinaryIO) -> FileStamp:
    stat = os.fstat(file.fileno())
    return FileStamp(stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _read(path: Path, source: Path | io.BytesIO, read: Callable[[Image.Image], _Result]) -> _Result:
    try:
        with Image.open(source, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > _MOST_PIXELS:
                raise ValueError(f"{width} x {height} pixels are more than {_MOST_PIXELS}")
            return read(image)
    except MemoryError:
        raise
    except Exception as cause:  # damaged bytes make Pillow's readers raise nearly anything
        raise ImageError(_unreadable(path, cause)) from cause


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode not in _MODES:
        raise ValueError(f"pixels of mode {image.mode} have more than 8 bits; convert it to 8 bits")
    image.load()
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of a transparent palette
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _unreadable(path: Path, cause: Exception) -> str:
    if isinstance(cause, UnidentifiedImageError):  # its own message names a buffer's address
        reason = f"cannot identify it as one of {', '.join(_FORMATS)}"
    elif isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror
    else:
        reason = " ".join(str(cause).split()) or type(cause).__name__
    return f"image {str(path)!r} cannot be read: {reason}; replace the file, or leave it out"
