"""What a store says of itself, complete or not, without a look at any view."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.storage.folder import StoreFolder
from pipeline.storage.lease import LeaseHolder, read_lease
from pipeline.teacher_store.entries import TeacherEntry
from pipeline.teacher_store.layout import layout_of
from pipeline.teacher_store.manifest_reading import read_manifest
from pipeline.teacher_store.opening import read_entries, read_entry
from store_schemas.heatmap_codec import CodecError, sum_codec_errors
from store_schemas.optional_arrays import OptionalArrays
from store_schemas.profiles import profile_of
from store_schemas.teacher_store import SCHEMA, Status


@dataclass(frozen=True)
class TeacherSummary:
    """What a store says of one teacher."""

    name: str
    teacher: Mapping[str, Any]
    """The identity's section of that name."""
    fingerprint: str
    content: str | None
    """sha256 of the manifest; None while the store is incomplete."""
    num_shards: int
    num_present: int
    num_people: int
    num_images: int
    num_views: int
    """V, view 0 included."""
    num_keypoints: int
    input_size_hw: tuple[int, int]
    heatmap_size_hw: tuple[int, int]
    seed: int
    profile: str
    dtype: str
    threshold: float
    optional: OptionalArrays
    array_bytes: Mapping[str, int]
    """Of all shards that are there, by array."""
    status_counts: Mapping[str, int]
    """Views by status, those of absent shards as not written."""
    codec_error: CodecError
    execution_recipe: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def is_complete(self) -> bool:
        return self.content is not None

    @property
    def num_written(self) -> int:
        """Views of the shards that are there."""
        return sum(self.status_counts.values()) - self.status_counts[Status.NOT_WRITTEN.words]


@dataclass(frozen=True)
class StoreSummary:
    """What a store says of itself."""

    path: str
    schema: str
    num_bytes: int
    """Of all its files."""
    teachers: tuple[TeacherSummary, ...]
    writer: LeaseHolder | None
    """Whoever holds the lease, alive or not."""

    @property
    def bytes_per_view(self) -> float | None:
        """All files over all written views; None before the first."""
        written = sum(teacher.num_written for teacher in self.teachers)
        return self.num_bytes / written if written else None


def summarise_store(folder: StoreFolder, teacher: str | None = None) -> StoreSummary:
    """Return what a store says of itself.

    Args:
        teacher: Say nothing of the others; None: of all.

    Raises:
        IncompleteError: there is no store.
        SchemaError: another schema, or metadata that this program never writes.
        CorruptError: metadata or the manifest are damaged.
    """
    entries = read_entries(folder)
    if teacher is not None:
        entries = {teacher: read_entry(folder, teacher)}
    return StoreSummary(
        path=str(folder),
        schema=SCHEMA,
        num_bytes=folder.num_bytes(),
        teachers=tuple(_summarise(folder, entry) for entry in entries.values()),
        writer=read_lease(folder),
    )


def _summarise(folder: StoreFolder, entry: TeacherEntry) -> TeacherSummary:
    identity = entry.identity
    layout = layout_of(folder, entry.teacher, identity)
    size = layout.dimensions
    manifest = read_manifest(layout, entry)
    counts = {
        status.words: int(count)
        for status, count in zip(Status, manifest.status_counts.sum(axis=0), strict=True)
    }
    num_views = size.num_instances * size.num_views
    counts[Status.NOT_WRITTEN.words] += num_views - sum(counts.values())
    receipts = (manifest.receipt(shard) for shard in range(size.num_shards))
    profile = profile_of(identity["codec"])
    height, width = identity["views"]["input_size_hw"]
    return TeacherSummary(
        name=entry.teacher,
        teacher=identity.get("teacher", {}),
        fingerprint=entry.fingerprint,
        content=entry.content,
        num_shards=size.num_shards,
        num_present=int(manifest.is_present.sum()),
        num_people=size.num_instances,
        num_images=size.num_images,
        num_views=size.num_views,
        num_keypoints=size.num_keypoints,
        input_size_hw=(height, width),
        heatmap_size_hw=size.heatmap_size_hw,
        seed=identity["views"]["seed"],
        profile=profile.name,
        dtype=profile.dtype,
        threshold=float(identity["codec"]["threshold"]),
        optional=size.optional,
        array_bytes=dict(
            zip(layout.shard_specs, manifest.lengths.sum(axis=0).tolist(), strict=True)
        ),
        status_counts=counts,
        codec_error=sum_codec_errors(receipt.codec_error for receipt in receipts if receipt),
        execution_recipe=entry.execution_recipe,
        provenance=entry.provenance,
    )
