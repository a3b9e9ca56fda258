"""Every array of a teacher store by its path: the table that writer and reader follow."""

from store_schemas.errors import SchemaError
from store_schemas.formats import (
    CHECKSUMS,
    CROP_BLOSC,
    TOKEN_FILL,
    TOKEN_SCALES,
    HeatmapProfile,
    token_blosc,
)
from store_schemas.keypoint_codec import KEYPOINT_FILL
from store_schemas.teacher_store import (
    HEATMAP_FILL,
    MAX_CHUNK_BYTES,
    ROWS_PER_CHUNK,
    TOKEN_ERROR,
    ArraySpec,
    Status,
    StoreDimensions,
    check_teacher_name,
)


def array_specs(dimensions: StoreDimensions, teacher: str) -> dict[str, ArraySpec]:
    """Return every array of a store by its path, the manifest's included.

    Raises:
        SchemaError: a chunk would be larger than ``MAX_CHUNK_BYTES``.
    """
    specs = [*_people(dimensions), *_views(dimensions), *_teacher(dimensions, teacher)]
    for spec in specs:
        num_bytes = spec.rows_per_chunk * spec.bytes_per_row
        if not spec.is_sharded and num_bytes > MAX_CHUNK_BYTES:
            raise SchemaError(
                f"a chunk of {spec.path} must have at most {MAX_CHUNK_BYTES} bytes, got {num_bytes}"
            )
    return {spec.path: spec for spec in specs}


def _small(
    path: str, dtype: str, shape: tuple[int, ...], names: str, fill: int | bool | str = 0
) -> ArraySpec:
    rows = max(1, min(ROWS_PER_CHUNK, shape[0]))
    return ArraySpec(path, dtype, shape, rows, tuple(names.split()), fill)


def _people(size: StoreDimensions) -> list[ArraySpec]:
    n, m, r, k = size.num_instances, size.num_images, size.num_ignored, size.num_keypoints
    return [
        _small("people/instance_id", "int64", (n,), "instance"),
        _small("people/image_index", "int64", (n,), "instance"),
        _small("people/bbox_xywh", "float64", (n, 4), "instance xywh", "NaN"),
        _small("people/area", "float64", (n,), "instance", "NaN"),
        _small("people/keypoints", "float32", (n, k, 3), "instance keypoint x_y_visibility", "NaN"),
        _small("people/is_labelled", "bool", (n, k), "instance keypoint", False),
        _small("people/image_id", "int64", (m,), "image"),
        _small("people/image_name", "uint8", (m, size.name_length), "image utf8_byte"),
        _small("people/image_size_hw", "int64", (m, 2), "image hw"),
        _small("people/image_sha256", "uint8", (m, 32), "image digest_byte"),
        _small("people/ignored_annotation_id", "int64", (r,), "ignored"),
        _small("people/ignored_image_index", "int64", (r,), "ignored"),
        _small("people/ignored_bbox_xywh", "float64", (r, 4), "ignored xywh", "NaN"),
        _small("people/ignored_area", "float64", (r,), "ignored", "NaN"),
        _small("people/ignored_is_crowd", "bool", (r,), "ignored", False),
        _small("people/ignored_num_keypoints", "int64", (r,), "ignored"),
    ]


def _views(size: StoreDimensions) -> list[ArraySpec]:
    n, v = size.num_instances, size.num_views
    return [
        _small("views/image_to_crop", "float64", (n, v, 2, 3), "instance view row column", "NaN"),
        _small("views/is_mirrored", "bool", (n, v), "instance view", False),
    ]


def _teacher(size: StoreDimensions, teacher: str) -> list[ArraySpec]:
    n, v, k, rows = size.num_instances, size.num_views, size.num_keypoints, size.rows_per_shard
    below = f"teachers/{check_teacher_name(teacher)}"
    maps = ("instance", "view", "keypoint", "row", "column")
    outputs = ("instance", "view", "keypoint", "output")
    shards = size.num_shards
    arrays = len(size.shard_arrays) + len(size.optional.names())
    manifest = f"{below}/manifest"
    if isinstance(size.profile, HeatmapProfile):
        dtype = size.profile.dtype
        shape, fill, blosc = (n, v, *size.view_shape), HEATMAP_FILL[dtype], size.profile.blosc()
        predicted = [
            ArraySpec(f"{below}/heatmaps", dtype, shape, rows, maps, fill, blosc),
            ArraySpec(f"{below}/outputs", "float32", (n, v, k, 4), rows, outputs, "NaN"),
            ArraySpec(f"{below}/heatmap_crc32c", "uint32", (n, v), rows, maps[:2]),
        ]
    else:
        points = (*maps[:3], "xy")
        predicted = [
            ArraySpec(f"{below}/keypoints", "int16", (n, v, k, 2), rows, points, KEYPOINT_FILL),
            ArraySpec(f"{below}/confidences", "float16", (n, v, k), rows, maps[:3], "NaN"),
        ]
    return [
        *predicted,
        ArraySpec(f"{below}/status", "uint8", (n, v), rows, maps[:2]),
        *_optional(size, below),
        _small(f"{manifest}/rows", "int64", (shards, 2), "shard start_stop"),
        _small(f"{manifest}/lengths", "int64", (shards, arrays), "shard array"),
        _small(f"{manifest}/sha256", "uint8", (shards, arrays, 32), "shard array digest_byte"),
        _small(f"{manifest}/status_counts", "int64", (shards, len(Status)), "shard status"),
        _small(f"{manifest}/images_sha256", "uint8", (shards, 32), "shard digest_byte"),
        _small(f"{manifest}/codec_error", "float64", (shards, 3), "shard error", "NaN"),
        *(
            [_small(f"{manifest}/{TOKEN_ERROR}", "float64", (shards, 3), "shard error", "NaN")]
            if size.optional.has_token_scales
            else []
        ),
    ]


def _optional(size: StoreDimensions, below: str) -> list[ArraySpec]:
    """Return the arrays of crops and tokens, in the order of publishing."""
    n, v, rows = size.num_instances, size.num_views, size.rows_per_shard
    pair = ("instance", "view")
    found: dict[str, ArraySpec] = {}
    if size.optional.crops is not None:
        crops = (n, v, size.optional.crops.length)
        named = (*pair, "byte")
        found["crops"] = ArraySpec(f"{below}/crops", "uint8", crops, rows, named, 0, CROP_BLOSC)
        found["crop_bytes"] = ArraySpec(f"{below}/crop_bytes", "uint32", (n, v), rows, pair)
    for name, of_view in size.optional.token_shapes(size.num_keypoints).items():
        tokens = size.optional.tokens
        assert tokens is not None
        names = (*pair, name.removesuffix("_tokens").replace("visual", "patch"), "channel")
        shape, dtype = (n, v, *of_view), tokens.dtype
        blosc = token_blosc(tokens, size.profile)
        fill = TOKEN_FILL[dtype]
        found[name] = ArraySpec(f"{below}/{name}", dtype, shape, rows, names, fill, blosc)
        if size.optional.has_token_scales:
            scale = TOKEN_SCALES[name]
            found[scale] = ArraySpec(
                f"{below}/{scale}", "float16", shape[:-1], rows, names[:-1], "NaN"
            )
    for checksum in (CHECKSUMS[name] for name in CHECKSUMS.keys() & found.keys()):
        found[checksum] = ArraySpec(f"{below}/{checksum}", "uint32", (n, v), rows, pair)
    return [found[name] for name in size.optional.names()]
