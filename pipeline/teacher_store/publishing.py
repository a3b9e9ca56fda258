"""Publish the parts of a teacher store as files: the plan, one shard, the manifest, the root."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.storage.folder import StoreFolder
from pipeline.storage.lease import LEASE_NAME
from pipeline.teacher_store.plan import StoreLayout
from store_schemas.chunks import Run, encode_chunk, inner_chunk_crc32c
from store_schemas.errors import SchemaError, StoreError
from store_schemas.formats import CHECKSUMS, TOKEN_SCALES, HeatmapProfile
from store_schemas.keypoint_codec import KEYPOINT_FILL
from store_schemas.manifest import Manifest
from store_schemas.metadata import canonical_json
from store_schemas.root_metadata import TeacherEntry, read_entries, root_document
from store_schemas.teacher_store import (
    HEATMAP_FILL,
    ArraySpec,
    Status,
    check_array,
    group_metadata,
)

WRITTEN = (Status.OK, Status.IMAGE_UNREADABLE, Status.OUTPUT_NOT_FINITE)


def publish_plan(
    layout: StoreLayout,
    entry: TeacherEntry,
    others: dict[str, TeacherEntry],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    """Write a teacher's metadata, of a new store also people and views; the root last.

    Args:
        others: The teachers that the store has; none: the store is new.
        arrays: Values of ``layout.plan_specs()`` by path, of a new store.

    Raises:
        StoreError: something else is at the path already.
        SchemaError: an array has another shape or dtype than its spec.
    """
    folder, is_new = layout.folder, not others
    specs = layout.plan_specs() if is_new else []
    plan = [(spec, check_array(spec, arrays[spec.path])) for spec in specs]
    documents = layout.group_documents() | {spec.path: spec.metadata() for spec, _ in plan}
    if not is_new:
        documents = {layout.teacher_path: documents[layout.teacher_path]}
    documents |= layout.shard_documents()
    planned = {f"{path}/zarr.json" for path in documents} | {LEASE_NAME}
    planned |= {s.chunk_name(c) for s, _ in plan for c in range(s.num_chunks)}
    below = "" if is_new else f"{layout.teacher_path}/"
    must, other = (
        (f"{folder} must be a new or empty folder", "path")
        if is_new
        else (
            f"{folder}/{layout.teacher_path} must be new or empty",
            "--teacher-name, or remove it",
        )
    )
    for name in folder.names():  # a writer that was killed early may have left a part of the plan
        if name.startswith(below) and name not in planned:
            raise StoreError(f"{must}, but holds {name}; choose another {other}")
    folder.sweep()
    for spec, values in plan:
        publish_array(folder, spec, values)
    for path, document in documents.items():
        publish_document(folder, path, document)
    publish_root(folder, {**others, layout.teacher: entry})


def publish_manifest(layout: StoreLayout, manifest: Manifest) -> None:
    """Write the manifest's arrays and their group."""
    arrays = manifest.arrays()
    for name, spec in layout.manifest_specs.items():
        publish_array(layout.folder, spec, check_array(spec, arrays[name]))
        publish_document(layout.folder, spec.path, spec.metadata())
    publish_document(layout.folder, f"{layout.teacher_path}/manifest", group_metadata())


def publish_root(folder: StoreFolder, entries: dict[str, TeacherEntry]) -> None:
    """Write the root's ``zarr.json``: it alone lists the teachers and which are complete."""
    folder.publish("zarr.json", canonical_json(root_document(entries)))


def publish_entry(folder: StoreFolder, entry: TeacherEntry) -> None:
    """Write the root's ``zarr.json`` with another entry of one of its teachers."""
    publish_root(folder, {**read_entries(folder), entry.teacher: entry})


def publish_document(folder: StoreFolder, path: str, document: Mapping[str, Any]) -> None:
    """Write the ``zarr.json`` of the node at a path below the root."""
    folder.publish(f"{path}/zarr.json", canonical_json(document))


def encode_shard(
    layout: StoreLayout,
    shard: int,
    heatmaps: NDArray[Any] | None,
    outputs: NDArray[np.float32],
    status: NDArray[np.uint8],
    run: Run = map,
    optional: Mapping[str, NDArray[Any]] | None = None,
) -> list[tuple[str, bytes]]:
    """Return name and file of each of the teacher's arrays, in the order of publishing.

    Args:
        heatmaps: (n, V, K, Hh, Wh) of the profile's dtype, of the shard's n instances; None
            exactly if the store has none.
        outputs: (n, V, K, 4) as (scale, confidence, x, y); without heatmaps (n, V, K, 3) as
            (confidence, x, y).
        status: (n, V) uint8; where it is not OK, fill values replace heatmaps and outputs, so
            that the same bytes come out whatever a failed view left there.
        run: Encodes the views, as ``map`` does or in threads.
        optional: Crops and tokens, by array, if the store has them: ``crops`` (n, V) objects, each
            a JPEG's bytes (l,) uint8; ``keypoint_tokens`` (n, V, K, D) and ``visual_tokens``
            (n, V, P, D) of the store's data type, of int8 also ``keypoint_token_scale`` (n, V, K)
            and ``visual_token_scale`` (n, V, P) float16.

    Raises:
        SchemaError: other arrays, shape or dtype, or an output that contradicts its status.
    """
    rows, profile = layout.dimensions.shard_rows(shard), layout.dimensions.profile
    specs = layout.shard_specs
    columns, of_view = (4 if isinstance(profile, HeatmapProfile) else 3), specs["status"].shape[1:]
    shape = (len(rows), *of_view, layout.dimensions.num_keypoints, columns)
    if outputs.shape != shape or outputs.dtype != np.float32:
        raise SchemaError(f"outputs must be float32 {shape}, got {outputs.dtype} {outputs.shape}")
    values = {"status": check_array(_of_shard(specs["status"], rows), status)}
    if not np.isin(status, WRITTEN).all():
        raise SchemaError(
            f"status of a written view must be 1, 2 or 3, got {np.unique(status).tolist()}"
        )
    failed = np.asarray(values["status"] != Status.OK)
    outputs = _filled(outputs, failed, np.nan)
    wrong = ~(np.isfinite(outputs).all(axis=(-2, -1)) | failed)
    if isinstance(profile, HeatmapProfile):
        wrong |= (outputs[..., 0] < 0).any(axis=-1)
    if wrong.any():
        row, view = np.argwhere(wrong)[0].tolist()
        raise SchemaError(
            f"outputs with status OK must be finite, with scales of at least 0; row "
            f"{rows.start + row}, view {view} is not: give it the status OUTPUT_NOT_FINITE"
        )
    files: list[tuple[str, bytes]] = []
    if isinstance(profile, HeatmapProfile):
        if heatmaps is None:
            raise SchemaError(f"shard {shard} must have heatmaps, got none")
        heatmaps = check_array(_of_shard(specs["heatmaps"], rows), heatmaps)
        heatmaps = _filled(heatmaps, failed, float(HEATMAP_FILL[profile.dtype]))
        data = encode_chunk(specs["heatmaps"], shard, heatmaps, run)
        files.append(("heatmaps", data))
        values["outputs"] = check_array(_of_shard(specs["outputs"], rows), outputs)
        values["heatmap_crc32c"] = _checksums(specs["heatmaps"], shard, data, *failed.shape)
    else:
        if heatmaps is not None:
            raise SchemaError(f"shard {shard} must have no heatmaps, got {heatmaps.shape}")
        keypoints, confidences = profile.quantise(_filled(outputs, failed, 0.0))
        values["keypoints"] = _filled(keypoints, failed, KEYPOINT_FILL)
        values["confidences"] = _filled(confidences, failed, np.nan)
    for name in layout.dimensions.shard_arrays:
        if name in values:
            spec = _of_shard(specs[name], rows)
            files.append((name, encode_chunk(specs[name], shard, check_array(spec, values[name]))))
    return files + list(_encode_optional(specs, shard, optional or {}, failed, run))


def _of_shard(spec: ArraySpec, rows: range) -> ArraySpec:
    """Return the spec of a shard's rows alone."""
    return replace(spec, shape=(len(rows), *spec.shape[1:]))


def _encode_optional(
    specs: Mapping[str, ArraySpec],
    shard: int,
    optional: Mapping[str, NDArray[Any]],
    failed: NDArray[np.bool_],
    run: Run,
) -> Iterator[tuple[str, bytes]]:
    """Yield the arrays of crops and tokens; of views that failed, no crop and filled tokens."""
    sharded = [name for name in CHECKSUMS if name in specs]
    scales = {name: scale for name, scale in TOKEN_SCALES.items() if scale in specs}
    expected = [*sharded, *scales.values()]
    if set(optional) != set(expected):
        raise SchemaError(
            f"shard {shard} must have {', '.join(expected) or 'no more'} beside its heatmaps, got "
            f"{', '.join(optional) or 'none'}"
        )

    def checked(name: str) -> NDArray[Any]:
        spec = replace(specs[name], shape=(len(failed), *specs[name].shape[1:]))
        return _filled(check_array(spec, optional[name]), failed, float(spec.fill_value))

    for name in sharded:
        spec = replace(specs[name], shape=(len(failed), *specs[name].shape[1:]))
        values = _check_crops(spec, optional[name], failed) if name == "crops" else checked(name)
        if name in scales:
            scale = checked(scales[name])
            _require_finite(name, scale, failed, "be finite and at most 127 times 65504")
        elif name != "crops":
            what = "be finite in float16, whose largest number is 65504"
            _require_finite(name, values, failed, what)
        data = encode_chunk(specs[name], shard, values, run)
        yield name, data
        if name in scales:
            yield scales[name], encode_chunk(specs[scales[name]], shard, scale)
        if name == "crops":
            lengths = np.array([len(crop) for crop in values.flat], np.uint32)
            lengths = lengths.reshape(failed.shape)
            yield "crop_bytes", encode_chunk(specs["crop_bytes"], shard, lengths)
        checksums = _checksums(spec, shard, data, *failed.shape)
        yield CHECKSUMS[name], encode_chunk(specs[CHECKSUMS[name]], shard, checksums)


def _require_finite(name: str, values: NDArray[Any], failed: NDArray[np.bool_], what: str) -> None:
    is_finite = np.isfinite(values).all(axis=tuple(range(2, values.ndim)))
    if not (is_finite | failed).all():
        raise SchemaError(
            f"{name} of views with status OK must {what}; this teacher's are larger: write the "
            "store without them"
        )


def _checksums(
    spec: ArraySpec, shard: int, data: bytes, num_rows: int, num_views: int
) -> NDArray[np.uint32]:
    """Return the crc32c of every view's chunk in a shard's file: (n, V)."""
    found = inner_chunk_crc32c(data, spec.rows_per_chunk * num_views, f"shard {shard}")
    return found.reshape(-1, num_views)[:num_rows]


def _check_crops(spec: ArraySpec, crops: NDArray[Any], failed: NDArray[np.bool_]) -> NDArray[Any]:
    """Return crops with none where a view failed, and refuse a view without one."""
    if crops.shape != failed.shape or crops.dtype != object:
        raise SchemaError(
            f"{spec.path} must be objects {failed.shape}, got {crops.dtype} {crops.shape}"
        )
    checked = np.empty_like(crops)
    for place in np.ndindex(crops.shape):
        if failed[place]:
            checked[place] = np.zeros(0, np.uint8)
            continue
        crop: object = crops[place]
        if not (
            isinstance(crop, np.ndarray)
            and (crop.ndim, crop.dtype) == (1, np.uint8)
            and 0 < len(crop) <= spec.shape[2]
        ):
            got = f"{crop.dtype} {crop.shape}" if isinstance(crop, np.ndarray) else repr(crop)
            raise SchemaError(
                f"{spec.path} must have uint8 (1 to {spec.shape[2]},) of every view with status "
                f"OK, got {got} of row {place[0]}, view {place[1]}"
            )
        checked[place] = crop
    return checked


def _filled(values: NDArray[Any], where: NDArray[np.bool_], fill: float) -> NDArray[Any]:
    if not where.any():
        return values
    filled = values.copy()
    filled[where] = fill
    return filled


def publish_array(folder: StoreFolder, spec: ArraySpec, values: NDArray[Any]) -> None:
    """Write all chunks of an array that is not sharded."""
    for chunk in range(spec.num_chunks):
        rows = spec.chunk_rows(chunk)
        data = encode_chunk(spec, chunk, values[rows.start : rows.stop])
        folder.publish(spec.chunk_name(chunk), data)
