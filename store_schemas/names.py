"""Image names as rows of UTF-8 bytes padded with zeros: zarr's string types are not portable."""

import numpy as np
from numpy.typing import NDArray

from store_schemas.errors import SchemaError

MAX_NAME_BYTES = 4096


def pack_names(names: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the names as (M, L) uint8, L being the longest name's length in bytes.

    Raises:
        SchemaError: a name is empty, too long, or no relative path.
    """
    encoded = [_check(name).encode("utf-8") for name in names]
    length = max((len(name) for name in encoded), default=1)
    rows = np.zeros((len(encoded), length), np.uint8)
    for row, name in zip(rows, encoded, strict=True):
        row[: len(name)] = np.frombuffer(name, np.uint8)
    return rows


def unpack_names(rows: NDArray[np.uint8]) -> tuple[str, ...]:
    """Return the names of (M, L) uint8 rows.

    Raises:
        SchemaError: a row is no UTF-8, or no relative path.
    """
    try:
        return tuple(_check(row.tobytes().rstrip(b"\0").decode("utf-8")) for row in rows)
    except UnicodeDecodeError as error:
        raise SchemaError(f"image_name must be UTF-8, got {error}") from error


def _check(name: str) -> str:
    is_path = name and "\0" not in name and "\\" not in name and not name.startswith("/")
    if not is_path or ".." in name.split("/"):
        raise SchemaError(
            f"an image name must be a path below the image folder with forward slashes, "
            f"got {name!r}"
        )
    try:
        num_bytes = len(name.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise SchemaError(f"an image name must be UTF-8, got {name!r}") from error
    if num_bytes > MAX_NAME_BYTES:
        raise SchemaError(f"an image name must have at most {MAX_NAME_BYTES} bytes: {name!r}")
    return name
