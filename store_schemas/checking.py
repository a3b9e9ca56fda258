"""Check every byte of a store with this package alone: for a recipient without the pipeline.

Metadata are compared with schema and identity, arrays with their digests, and every chunk is
decoded. One generator of faults for each part of a store: ``check_store`` raises the first fault,
``pipeline/repair/verification.py`` collects them all.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store_schemas.chunks import ABSENT, decode_view, parse_shard_index, shard_index_bytes
from store_schemas.errors import CorruptError, StoreError
from store_schemas.formats import CHECKSUMS, TOKEN_SCALES
from store_schemas.layout import IMAGE_SHA256, TeacherLayout, check_document, read_array, read_chunk
from store_schemas.manifest import ShardReceipt, read_manifest, shards_of_other_images
from store_schemas.metadata import array_sha256, compare_identity
from store_schemas.root_metadata import TeacherEntry, read_entries
from store_schemas.teacher_store import ArraySpec, Status

ALTERED = "the array was altered after the store was written: restore it from a copy"
_CHECKSUMS = {"heatmaps": "heatmap_crc32c", **CHECKSUMS}


@dataclass(frozen=True)
class CheckedTeacher:
    """Result of checking one teacher of a store."""

    name: str
    fingerprint: str
    content_sha256: str | None
    """sha256 of the manifest; None: incomplete, and its shards were not checked."""
    num_people: int
    num_views: int
    """V, view 0 included."""
    status_counts: dict[str, int]
    """Views of the decoded shards by status."""


def check_store(path: Path | str) -> tuple[CheckedTeacher, ...]:
    """Compare every file of a local store with metadata and digests, and decode every chunk.

    Raises:
        IncompleteError: there is no store.
        SchemaError: metadata are not what schema and identity imply.
        IdentityError: an array of people or views was altered.
        CorruptError: bytes are missing, torn or altered; names the file.
    """
    folder = _LocalFiles(Path(path))
    return tuple(
        _check_teacher(TeacherLayout(folder, name, entry.identity), entry)
        for name, entry in read_entries(folder).items()
    )


def document_faults(layout: TeacherLayout, entry: TeacherEntry) -> Iterator[tuple[str, StoreError]]:
    """Yield every ``zarr.json`` below the root that is not the expected one: path and error."""
    for path, document in layout.documents(is_complete=entry.is_complete).items():
        try:
            check_document(layout.folder, path, document)
        except StoreError as error:
            yield path, error


def array_faults(layout: TeacherLayout, entry: TeacherEntry) -> Iterator[tuple[str, StoreError]]:
    """Yield every damaged array of people, views and manifest: path and error."""
    manifest = layout.manifest_specs.values() if entry.is_complete else ()
    for spec in (*layout.plan_specs(), *manifest):
        try:
            check_digests(layout, {spec.path: array_sha256(read_array(layout.folder, spec))})
        except StoreError as error:
            yield spec.path, error


def check_digests(layout: TeacherLayout, digests: dict[str, str]) -> None:
    """Compare the sha256 of arrays, by path, with those that the identity has.

    Raises:
        IdentityError: an array was altered; names the field.
    """
    known = {
        f"{name}/{array}": digest
        for name, section in (("people", layout.identity.people), ("views", layout.identity.views))
        for array, digest in section.arrays.items()
    }
    stored, now = (
        {path.replace("/", ".arrays."): found[path] for path in digests.keys() & known.keys()}
        for found in (known, digests)
    )
    compare_identity(stored, now, way_out=ALTERED)


def file_faults(
    layout: TeacherLayout, receipt: ShardReceipt, *, read: bool = True
) -> Iterator[CorruptError]:
    """Yield what is wrong with a shard's files: their lengths, and with ``read`` their sha256."""
    files = layout.shard_files(receipt.shard).values()
    for name, length, digest in zip(files, receipt.lengths, receipt.sha256, strict=True):
        size = layout.folder.size(name)
        if size is None:
            yield CorruptError(f"{name} is missing")
        elif size != length:
            yield CorruptError(f"{name} must have {length} bytes, got {size}")
        elif read:
            try:
                got = layout.folder.sha256(name)
            except CorruptError as error:  # the disk cannot read it
                yield error
                continue
            if got != digest:
                yield CorruptError(f"{name} must have sha256 {digest[:12]}, got {got[:12]}")


def _check_teacher(layout: TeacherLayout, entry: TeacherEntry) -> CheckedTeacher:
    for faults in (document_faults(layout, entry), array_faults(layout, entry)):
        for _, error in faults:
            raise error
    counts = np.zeros(len(Status), np.int64)
    if entry.is_complete:
        manifest = read_manifest(layout, entry)
        image_sha256, image_index = (
            read_array(layout.folder, layout.specs[f"people/{name}"])
            for name in (IMAGE_SHA256, "image_index")
        )
        for shard, _, _ in shards_of_other_images(manifest, image_sha256, image_index):
            _require(False, shard, "images_sha256")
        for receipt in manifest.receipts():
            for fault in file_faults(layout, receipt):
                raise fault
            _decode_shard(layout, receipt)
        counts = manifest.status_counts.sum(axis=0)
    return CheckedTeacher(
        name=layout.teacher,
        fingerprint=entry.fingerprint,
        content_sha256=entry.content_sha256,
        num_people=layout.dimensions.num_instances,
        num_views=layout.dimensions.num_views,
        status_counts={status.words: int(counts[status]) for status in Status},
    )


def _decode_shard(layout: TeacherLayout, receipt: ShardReceipt) -> None:
    """Decode every view of a shard, and compare what its arrays imply of each other."""
    shard, specs = receipt.shard, layout.shard_specs
    plain = {
        name: read_chunk(layout.folder, spec, shard)
        for name, spec in specs.items()
        if not spec.is_sharded
    }
    is_ok = plain["status"] == Status.OK
    # x and y of a store without heatmaps are whole: its confidences are what may be no number
    outputs = plain["outputs" if "outputs" in plain else "confidences"]
    counts = np.bincount(plain["status"].ravel(), minlength=len(Status))
    _require(counts.tolist() == list(receipt.status_counts), shard, "status_counts")
    _require(bool(np.isfinite(outputs[is_ok]).all()), shard, "status: outputs are not finite")
    _require(bool(np.isnan(outputs[~is_ok]).all()), shard, "status: a failed view has outputs")
    for scales in (plain[name] for name in TOKEN_SCALES.values() if name in plain):
        _require(bool(np.isfinite(scales[is_ok]).all()), shard, "status: scales are not finite")
        _require(bool(np.isnan(scales[~is_ok]).all()), shard, "status: a failed view has scales")
    for (name, spec), length in zip(specs.items(), receipt.lengths, strict=True):
        if spec.is_sharded:
            data = layout.folder.read(spec.chunk_name(shard), length)
            _decode_views(spec, shard, data, plain[_CHECKSUMS[name]])


def _decode_views(spec: ArraySpec, shard: int, data: bytes, checksums: NDArray[Any]) -> None:
    """Decode every view of a shard's file, each compared with its row's crc32c (n, V)."""
    num_rows, num_views = checksums.shape
    where = spec.chunk_name(shard)
    length = shard_index_bytes(spec.rows_per_chunk * num_views)
    index = parse_shard_index(data[-length:], len(data), where)
    view = np.empty(spec.shape[2:], spec.numpy_dtype)
    for place, (offset, size) in enumerate(index.tolist()):
        row, column = divmod(place, num_views)
        if row >= num_rows:
            _require(offset == int(ABSENT), shard, "rows: there is a chunk behind the last row")
            continue
        try:
            decode_view(data[offset : offset + size], int(checksums[row, column]), view)
        except CorruptError as error:
            raise CorruptError(f"{where}, row {row} of it, view {column}: {error}") from error


def _require(is_so: bool, shard: int, what: str) -> None:
    if not is_so:
        raise CorruptError(f"shard {shard} contradicts the manifest or itself in {what}")


@dataclass(frozen=True)
class _LocalFiles:
    """The files of a store on this machine; ``StoreFiles``."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def read(self, name: str, max_bytes: int) -> bytes:
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(name)
        if size > max_bytes:
            raise CorruptError(f"{name} must have at most {max_bytes} bytes: {size}")
        return (self.root / name).read_bytes()

    def size(self, name: str) -> int | None:
        path = self.root / name
        return path.stat().st_size if path.is_file() else None

    def sha256(self, name: str) -> str:
        with (self.root / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
