"""Schema ``1`` of the teacher store: names, types, shapes, chunk grids and codecs.

A Zarr v3 group (https://zarr-specs.readthedocs.io, core 3.0 and the codecs ``bytes``, ``blosc``,
``crc32c`` and ``sharding_indexed``). ``array_table.py`` is the single source of the arrays: writer,
reader and the checked-in metadata all follow it. Arrays are chunked along their first axis only.

V counts the plain evaluation crop, view 0, too.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store_schemas.choices import TEACHER_NAME
from store_schemas.errors import SchemaError
from store_schemas.formats import (
    DEFAULT_PROFILE,
    NONE,
    PROFILES,
    HeatmapProfile,
    OptionalArrays,
    StoreProfile,
)
from store_schemas.keypoint_codec import KEYPOINT_BYTES


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
        to_bytes = {"name": "bytes"} if self.numpy_dtype.itemsize == 1 else little
        if not self.is_sharded:
            return [to_bytes, checksum]
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


SCHEMA = "1"

ROWS_PER_CHUNK = 65_536
"""Rows of one chunk under ``people/`` and ``views/``; fewer only where the array has fewer."""
VIEWS_PER_SHARD = 1024
BYTES_PER_SHARD = 64 * 2**20
MAX_CHUNK_BYTES = 2**30
"""Largest chunk of an array that is not sharded: it is read whole, so memory is bounded."""
HEATMAP_FILL: dict[str, int | str] = {"uint8": 255, "float16": "NaN"}
"""Fill value by data type. A filled map has no valid scale, so a hole is never taken for a map
without heat."""

OUTPUT_COLUMNS = ("scale", "confidence", "x", "y")
SHARD_ARRAYS = ("heatmaps", "outputs", "heatmap_crc32c", "status")
"""Arrays of a teacher with heatmaps, one file per shard each, in the order of publishing and
listing."""
KEYPOINT_ARRAYS = ("keypoints", "confidences", "status")
"""Arrays of a teacher without heatmaps likewise."""
TOKEN_ERROR = "token_error"
"""Array of the manifest with the error of int8 tokens, relative to each token's largest number, in
the same columns as the codec's error."""
CODEC_ERROR_COLUMNS = ("largest", "sum_of_squares", "num_values")
"""Codec error of a shard, over every sixteenth person, see ``heatmap_codec.CodecError``."""


class Status(IntEnum):
    """Status of one view."""

    NOT_WRITTEN = 0
    OK = 1
    IMAGE_UNREADABLE = 2
    OUTPUT_NOT_FINITE = 3

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class StoreDimensions:
    """Every size that the shapes of a store follow from."""

    num_instances: int
    num_images: int
    num_ignored: int
    name_length: int
    """Bytes of the longest image name."""
    num_views: int
    """V, view 0 included."""
    num_keypoints: int
    heatmap_size_hw: tuple[int, int]
    rows_per_shard: int
    profile: StoreProfile = PROFILES[DEFAULT_PROFILE]
    optional: OptionalArrays = NONE
    """Formats of the crops and tokens that the teacher has."""

    def __post_init__(self) -> None:
        at_least_one = {
            "num_instances": self.num_instances,
            "num_images": self.num_images,
            "name_length": self.name_length,
            "num_views": self.num_views,
            "num_keypoints": self.num_keypoints,
            "heatmap_size_hw": min(self.heatmap_size_hw),
            "rows_per_shard": self.rows_per_shard,
        }
        for name, value in at_least_one.items():
            if value < 1:
                raise SchemaError(f"{name} of a teacher store must be at least 1, got {value}")
        if self.view_bytes > BYTES_PER_SHARD:
            raise SchemaError(
                f"heatmaps of one view must have at most {BYTES_PER_SHARD} bytes, got "
                f"{self.view_shape} of {self.profile.dtype}"
            )
        most = default_rows_per_shard(self.num_views, self.view_bytes)
        if self.rows_per_shard > most:
            raise SchemaError(
                f"rows_per_shard must be at most {most} ({VIEWS_PER_SHARD} views or "
                f"{BYTES_PER_SHARD} bytes of heatmaps), got {self.rows_per_shard}"
            )

    @property
    def num_shards(self) -> int:
        return -(-self.num_instances // self.rows_per_shard)

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """(K, Hh, Wh)."""
        return (self.num_keypoints, *self.heatmap_size_hw)

    @property
    def view_bytes(self) -> int:
        """Bytes of one view's heatmaps, or keypoints, before they are compressed."""
        return bytes_of_view(self.profile, self.view_shape)

    @property
    def shard_arrays(self) -> tuple[str, ...]:
        """Names of the teacher's arrays without crops and tokens, in the order of publishing."""
        return SHARD_ARRAYS if isinstance(self.profile, HeatmapProfile) else KEYPOINT_ARRAYS

    def shard_rows(self, shard: int) -> range:
        """Return the instances of a shard.

        Raises:
            IndexError: the store has no such shard.
        """
        if not 0 <= shard < self.num_shards:
            raise IndexError(f"shard must be in 0..{self.num_shards - 1}, got {shard}")
        start = shard * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.num_instances))


def bytes_of_view(profile: StoreProfile, view_shape: tuple[int, int, int]) -> int:
    """Return the bytes of one view's heatmaps (K, Hh, Wh), or keypoints, uncompressed."""
    if isinstance(profile, HeatmapProfile):
        return math.prod(view_shape) * profile.bytes_per_cell
    return KEYPOINT_BYTES * view_shape[0]


def planned_rows_per_shard(
    profile: StoreProfile,
    optional: OptionalArrays,
    num_instances: int,
    num_views: int,
    view_shape: tuple[int, int, int],
) -> int:
    """Return the people of a shard of a new store, by the bytes of a view in its largest array.

    Without heatmaps a shard has no more people than there are: padding of arrays that are not
    compressed would outweigh a small store.
    """
    view_bytes = max(bytes_of_view(profile, view_shape), optional.view_bytes(view_shape[0]))
    rows = default_rows_per_shard(num_views, view_bytes)
    return rows if isinstance(profile, HeatmapProfile) else min(rows, num_instances)


def default_rows_per_shard(num_views: int, view_bytes: int) -> int:
    """Return how many people make a shard of about a thousand views and at most 64 MiB."""
    views = max(1, min(VIEWS_PER_SHARD, BYTES_PER_SHARD // view_bytes))
    return max(1, views // num_views)


def teacher_attributes() -> dict[str, Any]:
    """Return the names of columns and codes, for readers without this program."""
    return {
        "outputs": list(OUTPUT_COLUMNS),
        "status": {str(status.value): status.words for status in Status},
        "codec_error": list(CODEC_ERROR_COLUMNS),
    }


def check_teacher_name(name: str) -> str:
    """Return the name of a teacher's group, or raise SchemaError."""
    if not TEACHER_NAME.fullmatch(name):
        raise SchemaError(
            f"a teacher's name must be 1 to 64 of a-z, 0-9, _ and - and start with a letter or "
            f"digit, got {name!r}"
        )
    return name
