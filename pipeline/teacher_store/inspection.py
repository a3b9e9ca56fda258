"""Summary of a store, complete or not, from its metadata and manifest alone; no view is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.storage.folder import StoreFolder
from pipeline.storage.lease import LeaseHolder, read_lease
from pipeline.teacher_store.plan import layout_of
from store_schemas.formats import OptionalArrays, StoreProfile
from store_schemas.heatmap_codec import CodecError, sum_codec_errors
from store_schemas.manifest import read_manifest
from store_schemas.root_metadata import TeacherEntry, read_entries, read_entry
from store_schemas.teacher_store import SCHEMA, Status


@dataclass(frozen=True)
class TeacherSummary:
    """Summary of one teacher's part of a store."""

    name: str
    teacher: Mapping[str, Any]
    """The identity's section ``teacher``."""
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
    profile: StoreProfile
    threshold: float
    optional: OptionalArrays
    array_bytes: Mapping[str, int]
    """Bytes of all present shards, by array."""
    status_counts: Mapping[str, int]
    """Views by status; views of absent shards count as not written."""
    codec_error: CodecError
    token_error: CodecError | None
    """Error of int8 tokens, relative to each token's largest number; None: there are none."""
    execution_recipe: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def is_complete(self) -> bool:
        return self.content is not None

    @property
    def num_written(self) -> int:
        """Number of views in the present shards."""
        return sum(self.status_counts.values()) - self.status_counts[Status.NOT_WRITTEN.words]


@dataclass(frozen=True)
class StoreSummary:
    """Summary of a store."""

    path: str
    schema: str
    num_bytes: int
    """Bytes of all its files."""
    teachers: tuple[TeacherSummary, ...]
    writer: LeaseHolder | None
    """Holder of the lease, alive or not."""

    @property
    def bytes_per_view(self) -> float | None:
        """Bytes of all files divided by the written views; None before the first."""
        written = sum(teacher.num_written for teacher in self.teachers)
        return self.num_bytes / written if written else None


def summarise_store(folder: StoreFolder, teacher: str | None = None) -> StoreSummary:
    """Return the summary of a store.

    Args:
        teacher: The only teacher to summarise; None: all of them.

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
    identity, layout = entry.identity, layout_of(folder, entry)
    size = layout.dimensions
    manifest = read_manifest(layout, entry)
    counts = {
        status.words: int(count)
        for status, count in zip(Status, manifest.status_counts.sum(axis=0), strict=True)
    }
    num_views = size.num_instances * size.num_views
    counts[Status.NOT_WRITTEN.words] += num_views - sum(counts.values())
    return TeacherSummary(
        name=entry.teacher,
        teacher=identity.teacher,
        fingerprint=entry.fingerprint,
        content=entry.content_sha256,
        num_shards=size.num_shards,
        num_present=int(manifest.is_present.sum()),
        num_people=size.num_instances,
        num_images=size.num_images,
        num_views=size.num_views,
        num_keypoints=size.num_keypoints,
        input_size_hw=identity.views.input_size_hw,
        heatmap_size_hw=size.heatmap_size_hw,
        seed=identity.views.seed,
        profile=size.profile,
        threshold=identity.codec.threshold,
        optional=size.optional,
        array_bytes=dict(
            zip(layout.shard_specs, manifest.lengths.sum(axis=0).tolist(), strict=True)
        ),
        status_counts=counts,
        codec_error=sum_codec_errors(receipt.codec_error for receipt in manifest.receipts()),
        token_error=(
            sum_codec_errors(filter(None, (r.token_error for r in manifest.receipts())))
            if size.optional.has_token_scales
            else None
        ),
        execution_recipe=entry.execution_recipe,
        provenance=entry.provenance,
    )
