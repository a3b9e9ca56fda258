"""One array of a store, complete: its ``zarr.json``, chunk files and their names follow from it.

Zarr v3 (https://zarr-specs.readthedocs.io, core 3.0) with the codecs ``bytes``, ``blosc``,
``crc32c`` and ``sharding_indexed``. Arrays are chunked along their first axis only.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store_schemas.errors import SchemaError


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store, complete: its ``zarr.json`` follows from it."""

    path: str
    """Name below the store's root, with forward slashes."""
    dtype: str
    """Zarr v3 data type, also numpy's name of it; on disk always little-endian."""
    shape: tuple[int, ...]
    rows_per_chunk: int
    dimension_names: tuple[str, ...]
    fill_value: int | bool | str = 0
    blosc: dict[str, Any] | None = None
    """Blosc settings of a sharded array, one inner chunk per view; None: a plain array."""

    @property
    def is_sharded(self) -> bool:
        return self.blosc is not None

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape that one file holds, padding included."""
        return (self.rows_per_chunk, *self.shape[1:])

    @property
    def num_chunks(self) -> int:
        return -(-self.shape[0] // self.rows_per_chunk)

    @property
    def numpy_dtype(self) -> "np.dtype[Any]":
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def bytes_per_row(self) -> int:
        return math.prod(self.shape[1:]) * self.numpy_dtype.itemsize

    def chunk_key(self, chunk: int) -> str:
        """Return the file name of a chunk inside the array's folder."""
        return ".".join(["c", str(chunk), *["0"] * (len(self.shape) - 1)])

    def chunk_name(self, chunk: int) -> str:
        """Return the name of a chunk's file below the store's root."""
        return f"{self.path}/{self.chunk_key(chunk)}"

    def chunk_rows(self, chunk: int) -> range:
        """Return the rows that a chunk holds, without padding."""
        start = chunk * self.rows_per_chunk
        return range(start, min(start + self.rows_per_chunk, self.shape[0]))

    def metadata(self) -> dict[str, Any]:
        """Return the array's ``zarr.json``."""
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": list(self.chunk_shape)},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": self.fill_value,
            "codecs": self._codecs(),
            "attributes": {},
            "dimension_names": list(self.dimension_names),
        }

    def _codecs(self) -> list[dict[str, Any]]:
        little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
        checksum: dict[str, Any] = {"name": "crc32c"}
        one_byte = self.numpy_dtype.itemsize == 1
        if not self.is_sharded:
            return [{"name": "bytes"} if one_byte else little, checksum]
        to_bytes = {"name": "bytes"} if one_byte else little
        blosc = {"name": "blosc", "configuration": self.blosc}
        configuration = {
            "chunk_shape": [1, 1, *self.shape[2:]],
            "codecs": [to_bytes, blosc, checksum],
            "index_codecs": [little, checksum],
            "index_location": "end",
        }
        return [{"name": "sharding_indexed", "configuration": configuration}]


def group_metadata(attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a group's ``zarr.json``."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes or {}}


def check_array(spec: ArraySpec, values: NDArray[Any]) -> NDArray[Any]:
    """Return the values as the array stores them: C order, the spec's dtype and shape.

    Raises:
        SchemaError: another shape, or a dtype that would be converted.
    """
    if values.shape != spec.shape or values.dtype != np.dtype(spec.dtype):
        raise SchemaError(
            f"{spec.path} must be {spec.dtype} {spec.shape}, got {values.dtype} {values.shape}"
        )
    return np.ascontiguousarray(values, dtype=spec.numpy_dtype)
