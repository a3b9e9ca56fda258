"""The schema's metadata is checked in, and is what zarr itself would write."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.storage import MemoryStore

from store_schemas.array_table import array_specs
from store_schemas.errors import SchemaError
from store_schemas.formats import PROFILES, HeatmapProfile, OptionalArrays, TokenFormat, crop_format
from store_schemas.teacher_store import (
    ArraySpec,
    Status,
    StoreDimensions,
    check_array,
    check_teacher_name,
    default_rows_per_shard,
    group_metadata,
    teacher_attributes,
)

GOLDEN = Path(__file__).with_name("golden_teacher_store.json")


def dimensions(**changes: Any) -> StoreDimensions:
    sizes: dict[str, Any] = {
        "num_instances": 150_001,
        "num_images": 3,
        "num_ignored": 0,
        "name_length": 12,
        "num_views": 9,
        "num_keypoints": 17,
        "heatmap_size_hw": (64, 48),
        "rows_per_shard": 113,
        # the schema does not follow what a profile's name stands for
        "profile": HeatmapProfile("default", "uint8", 0.015, 7, "zstd", 5),
    }
    return StoreDimensions(**(sizes | changes))


def documents() -> dict[str, Any]:
    nodes = {path: spec.metadata() for path, spec in array_specs(dimensions(), "hrnet").items()}
    return nodes | {"teachers/hrnet": group_metadata(teacher_attributes())}


def test_metadata_is_the_one_checked_in() -> None:
    """A changed name, type, chunk grid or codec is a new schema version."""
    assert documents() == json.loads(GOLDEN.read_text())


def written_by_zarr(spec: ArraySpec) -> dict[str, Any]:
    one_byte = spec.numpy_dtype.itemsize == 1
    blosc = BloscCodec(**(spec.blosc or {"typesize": 1}))
    sharded: dict[str, Any] = {"shards": spec.chunk_shape, "chunks": (1, 1, *spec.shape[2:])}
    grid = sharded if spec.is_sharded else {"chunks": spec.chunk_shape}
    array = zarr.create_array(
        MemoryStore(),
        shape=spec.shape,
        dtype=spec.dtype,
        **grid,
        serializer=BytesCodec(endian=None if one_byte else "little"),
        compressors=[blosc, Crc32cCodec()] if spec.is_sharded else [Crc32cCodec()],
        fill_value=np.nan if spec.fill_value == "NaN" else spec.fill_value,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=spec.dimension_names,
    )
    document: dict[str, Any] = json.loads(json.dumps(array.metadata.to_dict(), default=str))
    return document


@pytest.mark.parametrize("path", sorted(array_specs(dimensions(num_ignored=5), "hrnet")))
def test_zarr_writes_the_same_metadata(path: str) -> None:
    require_zarrs_own(array_specs(dimensions(num_ignored=5), "hrnet")[path])


@pytest.mark.parametrize("profile", PROFILES)
def test_zarr_writes_the_same_metadata_of_heatmaps_in_every_profile(profile: str) -> None:
    sizes = dimensions(profile=PROFILES[profile], rows_per_shard=56)
    require_zarrs_own(array_specs(sizes, "hrnet")["teachers/hrnet/heatmaps"])


@pytest.mark.parametrize("profile", ["default", "lossless-float16"])
def test_zarr_writes_the_same_metadata_of_crops_and_tokens(profile: str) -> None:
    tokens = TokenFormat(("keypoint", "visual"), 192, (16, 16))
    optional = OptionalArrays(crop_format((256, 192), 90, "4:2:0"), tokens)
    sizes = dimensions(profile=PROFILES[profile], rows_per_shard=50, optional=optional)
    specs = array_specs(sizes, "hrnet")
    assert specs["teachers/hrnet/manifest/lengths"].shape[1] == 4 + len(optional.names())
    for name in optional.names():
        require_zarrs_own(specs[f"teachers/hrnet/{name}"])


def require_zarrs_own(spec: ArraySpec) -> None:
    theirs, ours = written_by_zarr(spec), spec.metadata()
    assert theirs.pop("storage_transformers", []) in ([], ())
    theirs["fill_value"] = "NaN" if ours["fill_value"] == "NaN" else theirs["fill_value"]
    assert theirs == ours


def test_a_shard_holds_about_a_thousand_views_and_at_most_64_mib() -> None:
    assert default_rows_per_shard(9, 17 * 64 * 48) == 113
    assert default_rows_per_shard(1, 17 * 64 * 48) == 1024
    assert default_rows_per_shard(1, 17 * 256 * 192) == 80
    assert default_rows_per_shard(1, 2 * 17 * 256 * 192) == 40
    assert default_rows_per_shard(5000, 17 * 64 * 48) == 1


def test_shards_cover_every_row_once_and_the_last_may_be_short() -> None:
    size = dimensions(num_instances=230)
    rows = [row for shard in range(size.num_shards) for row in size.shard_rows(shard)]
    assert rows == list(range(230))
    assert size.num_shards == 3
    with pytest.raises(IndexError, match=r"shard must be in 0\.\.2, got 3"):
        size.shard_rows(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_instances": 0}, "num_instances of a teacher store must be at least 1"),
        ({"rows_per_shard": 114}, r"rows_per_shard must be at most 113 .* got 114"),
        ({"heatmap_size_hw": (65536, 65536)}, "heatmaps of one view must have at most"),
    ],
)
def test_sizes_out_of_bounds_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        dimensions(**change)


def test_values_of_another_dtype_or_shape_are_refused() -> None:
    spec = array_specs(dimensions(num_instances=2), "hrnet")["people/area"]
    with pytest.raises(SchemaError, match=r"people/area must be float64 \(2,\), got float32"):
        check_array(spec, np.zeros(2, np.float32))


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a" * 65, "zarr.json"])
def test_a_teacher_whose_name_is_no_plain_folder_is_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="a teacher's name must be"):
        check_teacher_name(name)


def test_status_codes_are_those_on_disk() -> None:
    assert [(s.value, s.words) for s in Status] == [
        (0, "not written"),
        (1, "ok"),
        (2, "image unreadable"),
        (3, "output not finite"),
    ]
