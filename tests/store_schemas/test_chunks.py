"""Chunk files are zarr's own, byte for byte, whoever encodes the views of a shard."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.buffer import cpu
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from store_schemas.array_table import array_specs
from store_schemas.chunks import encode_chunk
from store_schemas.formats import PROFILES
from store_schemas.metadata import canonical_json
from store_schemas.teacher_store import ArraySpec, StoreDimensions


def zarrs_own(spec: ArraySpec, chunk: int, values: NDArray[Any]) -> bytes:
    """Return the file that zarr makes of a chunk's rows."""
    metadata = cpu.Buffer.from_bytes(canonical_json(spec.metadata()))
    objects: dict[str, Buffer] = {"zarr.json": metadata}
    array = zarr.open_array(MemoryStore(objects), mode="r+", zarr_format=3)
    array = array.with_config({"write_empty_chunks": True})
    rows = spec.chunk_rows(chunk)
    array[rows.start : rows.stop] = values
    return objects[spec.chunk_key(chunk)].to_bytes()


def specs_of(rows_per_shard: int, num_views: int, profile: str = "default") -> dict[str, ArraySpec]:
    """Return the specs of a store whose second shard lacks its last row, if it has several."""
    people = 2 * rows_per_shard - (rows_per_shard > 1)
    sizes = StoreDimensions(
        people, 3, 0, 12, num_views, 2, (5, 4), rows_per_shard, PROFILES[profile]
    )
    return array_specs(sizes, "t")


def values_of(spec: ArraySpec, chunk: int) -> NDArray[Any]:
    """Return rows that compress, with holes and, in the first view, nothing but fill."""
    generator = np.random.default_rng(chunk)
    shape = (len(spec.chunk_rows(chunk)), *spec.shape[1:])
    values = (generator.integers(0, 250, shape) * (generator.random(shape) < 0.3)).astype(
        spec.numpy_dtype
    )
    values[0, 0] = np.nan if spec.dtype.startswith("float") else 255
    return values


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.parametrize(
    ("rows_per_shard", "num_views"), [(1, 1), (1, 9), (7, 1), (5, 3), (3, 9), (16, 9), (113, 9)]
)
@pytest.mark.parametrize("chunk", [0, 1])
def test_a_shard_is_byte_for_byte_what_zarr_writes(
    rows_per_shard: int, num_views: int, chunk: int, profile: str
) -> None:
    """Views in zarr's order, its index, its checksums; the last shard without its padding."""
    spec = specs_of(rows_per_shard, num_views, profile)["teachers/t/heatmaps"]
    values = values_of(spec, chunk)
    assert encode_chunk(spec, chunk, values) == zarrs_own(spec, chunk, values)


@pytest.mark.parametrize("name", ["outputs", "heatmap_crc32c", "status"])
@pytest.mark.parametrize("chunk", [0, 1])
def test_a_plain_chunk_is_byte_for_byte_what_zarr_writes(name: str, chunk: int) -> None:
    spec = specs_of(5, 3)[f"teachers/t/{name}"]
    values = values_of(spec, chunk)
    assert encode_chunk(spec, chunk, values) == zarrs_own(spec, chunk, values)


def test_threads_change_no_byte() -> None:
    spec = replace(specs_of(16, 9)["teachers/t/heatmaps"])
    values = values_of(spec, 0)
    with ThreadPoolExecutor(4) as pool:
        assert encode_chunk(spec, 0, values, pool.map) == encode_chunk(spec, 0, values)
