"""Write a teacher store: the plan, then shard by shard, then the manifest.

A store's people and views are fixed by its first plan and shared by all of its teachers; an added
one brings its own group, identity and completion. The root's ``zarr.json`` is written last, so that
a kill at any time leaves the other teachers as they were.

Chunks are encoded in memory and published through ``storage.files``: zarr's own local store reads
an existing shard before it rewrites it, so that a torn one could never be replaced, and makes
nothing durable. The root is rewritten once, when the teacher is complete; a kill between any two
files leaves what ``resume`` carries on from. A writer holds no file and no array, so it can be sent
to worker processes; it publishes only while the store's lease bears its run. What a worker was
writing as it was killed is swept at the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.storage.folder import StoreFolder
from pipeline.storage.lease import require_lease
from pipeline.teacher_store.people_comparison import compare_people
from pipeline.teacher_store.plan import (
    StoredPlan,
    StoreLayout,
    ViewPlan,
    layout_of,
    people_identity,
    plan_arrays,
    read_plan,
    views_identity,
)
from pipeline.teacher_store.publishing import (
    encode_shard,
    publish_entry,
    publish_manifest,
    publish_plan,
)
from pipeline.teacher_store.recovery import bad_shards, replace_images, require_same_images
from pipeline.wording import counted
from store_schemas.checking import file_faults
from store_schemas.chunks import Run
from store_schemas.errors import IncompleteError, StoreError
from store_schemas.formats import DEFAULT_PROFILE, NONE, PROFILES, OptionalArrays, StoreProfile
from store_schemas.heatmap_codec import NOT_MEASURED, CodecError
from store_schemas.manifest import Manifest, ShardReceipt, read_manifest, read_receipt
from store_schemas.metadata import as_json, canonical_json, compare_identity, flatten, parse_json
from store_schemas.root_metadata import TeacherEntry, read_entries, read_entry, root_document
from store_schemas.stored_identity import CodecIdentity, StoreIdentity, ViewsIdentity
from store_schemas.teacher_store import Status, planned_rows_per_shard

GROWING = "a store's views are fixed when it is begun: give as many --views, or write another store"
WAY_OUT = "the teachers of a store share their views: give the same, or write another store"


@dataclass
class TeacherStoreWriter:
    """One teacher's part of a store while it grows; made by ``begin_teacher`` or ``resume``."""

    layout: StoreLayout
    entry: TeacherEntry
    run_id: str
    """The run that holds the store's lease."""

    @classmethod
    def resume(
        cls,
        folder: StoreFolder,
        run_id: str,
        identity: Mapping[str, Any],
        recipe: Mapping[str, Any],
        image_sha256: NDArray[np.uint8] | None = None,
        accept_mended_images: bool = False,
        teacher_name: str | None = None,
        allow_other_recipe: bool = False,
    ) -> Self:
        """Carry on where a writer stopped.

        Temporary files are swept, and shards whose files are not those of their receipt (lengths
        and sha256) become pending again.

        Args:
            run_id: The run that holds the lease of the folder.
            identity: Section ``teacher`` of the identity, and any other section or fields of one
                to be compared too, as JSON.
            image_sha256: (M, 32) uint8, the images' digests now; None: not compared.
            accept_mended_images: Accept other files for images that no shard was written from.

        Raises:
            IdentityError: identity or recipe differ, or an image that a shard was written from
                has changed; names the field.
            StoreError: what is there cannot be resumed.
        """
        entry = read_entry(folder, teacher_name)
        given = as_json(identity)
        fields = {"teacher", *flatten(given)}  # of planned sections only what is given
        way_out = "resume with what the store was made from, or write to another path"
        compare_identity(entry.identity.to_json(), given, fields, way_out=way_out)
        if not allow_other_recipe:
            compare_identity(
                {"execution_recipe": entry.execution_recipe},
                {"execution_recipe": dict(recipe)},
                way_out="resume with the store's recipe, or allow another one explicitly",
            )
        layout = layout_of(folder, entry)
        require_lease(folder, run_id)
        folder.sweep()
        plan = read_plan(layout)
        writer = cls(layout, entry, run_id)
        if writer.is_complete:
            if image_sha256 is not None:
                require_same_images(layout, plan, image_sha256, shards=())
            writer._remove_receipts()
            return writer
        bad_receipts: dict[int, StoreError] = {}
        manifest = read_manifest(layout, entry, bad_receipts)
        for shard in bad_receipts.keys() | bad_shards(layout, manifest, plan).keys():
            folder.remove(layout.receipt_name(shard))
        if image_sha256 is not None:
            may_change = set(writer.pending_shards()) if accept_mended_images else set()
            replace_images(layout, plan, image_sha256, may_change)
        return writer

    @property
    def is_complete(self) -> bool:
        return self.entry.is_complete

    @property
    def num_shards(self) -> int:
        return self.layout.dimensions.num_shards

    @property
    def profile(self) -> StoreProfile:
        return self.layout.dimensions.profile

    @property
    def threshold(self) -> float:
        """Largest error of heat far from a map's peak."""
        return self.entry.identity.codec.threshold

    def shard_rows(self, shard: int) -> range:
        """Return the instances of a shard."""
        return self.layout.dimensions.shard_rows(shard)

    def pending_shards(self) -> list[int]:
        """Return the shards without a receipt, as the disk has them now."""
        if self.is_complete:
            return []
        return [s for s in range(self.num_shards) if read_receipt(self.layout, s) is None]

    def write_shard(
        self,
        shard: int,
        heatmaps: NDArray[Any] | None,
        outputs: NDArray[np.float32],
        status: NDArray[np.uint8],
        images_sha256: str,
        codec_error: CodecError = NOT_MEASURED,
        run: Run = map,
        optional: Mapping[str, NDArray[Any]] | None = None,
        token_error: CodecError = NOT_MEASURED,
    ) -> ShardReceipt:
        """Publish a whole shard, then its receipt; a shard that is there already is replaced.

        Args:
            heatmaps, outputs: As for ``encode_shard``.
            status: (n, V) uint8; fill values replace what a view that is not OK left there.
            images_sha256: ``digest_of_images`` of the shard's people.
            codec_error: Measured over the shard's people that ``is_measured`` picks.
            run, optional: As for ``encode_shard``.
            token_error: Measured over the same people; only int8 tokens have one.

        Raises:
            SchemaError: another shape or dtype, or an output that contradicts its status.
            LeaseError: another run took over.
            StoreError: the store is complete.
        """
        layout = self.layout
        if self.is_complete:
            raise StoreError(
                f"{layout.folder} is complete and shard {shard} cannot be written; begin another"
            )
        rows = self.shard_rows(shard)
        files = encode_shard(layout, shard, heatmaps, outputs, status, run, optional)
        require_lease(layout.folder, self.run_id)
        # A receipt must never describe files that are just being replaced.
        layout.folder.remove(layout.receipt_name(shard))
        lengths, digests = [], []
        for name, data in files:
            layout.folder.publish(layout.shard_specs[name].chunk_name(shard), data)
            lengths.append(len(data))
            digests.append(sha256(data).hexdigest())
        receipt = ShardReceipt(
            shard=shard,
            rows=(rows.start, rows.stop),
            lengths=tuple(lengths),
            sha256=tuple(digests),
            status_counts=tuple(np.bincount(status.ravel(), minlength=len(Status)).tolist()),
            images_sha256=images_sha256,
            codec_error=codec_error,
            token_error=token_error if layout.dimensions.optional.has_token_scales else None,
        )
        require_lease(layout.folder, self.run_id)
        document = canonical_json(receipt.to_json(self.entry.fingerprint))
        layout.folder.publish(layout.receipt_name(shard), document)
        return receipt

    def finish(self) -> str:
        """Write the manifest, declare the store complete and return its ``content_sha256``.

        Raises:
            IncompleteError: shards are missing; says how many are there.
            LeaseError: another run took over.
        """
        if not self.is_complete:
            manifest = self._whole_manifest()
            require_lease(self.layout.folder, self.run_id)
            self.layout.folder.sweep()
            publish_manifest(self.layout, manifest)
            entry = replace(self.entry, content_sha256=manifest.content_sha256)
            publish_entry(self.layout.folder, entry)
            self.entry = entry
        self._remove_receipts()
        assert self.entry.content_sha256 is not None
        return self.entry.content_sha256

    def _remove_receipts(self) -> None:
        self.layout.folder.remove(*map(self.layout.receipt_name, range(self.num_shards)))

    def _whole_manifest(self) -> Manifest:
        receipts = [read_receipt(self.layout, shard) for shard in range(self.num_shards)]
        missing = [
            shard
            for shard, receipt in enumerate(receipts)
            if receipt is None or any(file_faults(self.layout, receipt, read=False))
        ]
        if missing:
            raise IncompleteError(
                f"{self.layout.folder} has {self.num_shards - len(missing)} of "
                f"{counted(self.num_shards, 'shard')}, the first missing one is {missing[0]}; run "
                f"again with --resume"
            )
        return Manifest.of_receipts(receipts, len(self.layout.shard_specs))


@dataclass(frozen=True, kw_only=True)
class NewTeacher:
    """A teacher that has no part of the store yet, and how its outputs will be stored."""

    name: str
    identity: Mapping[str, Any]
    """Weights and settings of the teacher, JSON."""
    recipe: Mapping[str, Any]
    """Settings of its execution; a resumption under others is refused unless it is allowed."""
    provenance: Mapping[str, Any]
    """Versions, hardware, paths: recorded, never compared."""
    heatmap_size_hw: tuple[int, int]
    threshold: float
    """Largest error of heat far from a map's peak."""
    profile: StoreProfile = PROFILES[DEFAULT_PROFILE]
    rows_per_shard: int | None = None
    """People per shard; None: about a thousand views."""
    optional: OptionalArrays = NONE
    """Formats of the crops and tokens to store."""

    def codec(self, num_views: int, people: People) -> CodecIdentity:
        """Return the identity's section ``codec``."""
        view_shape = (people.skeleton.num_keypoints, *self.heatmap_size_hw)
        planned_rows = planned_rows_per_shard(
            self.profile, self.optional, people.num_instances, num_views, view_shape
        )
        return CodecIdentity(
            profile=self.profile,
            heatmap_size_hw=self.heatmap_size_hw,
            threshold=float(self.threshold),
            rows_per_shard=self.rows_per_shard or planned_rows,
        )


def begin_teacher(
    folder: StoreFolder,
    run_id: str,
    people: People,
    image_sha256: NDArray[np.uint8],
    views: ViewPlan,
    teacher: NewTeacher,
) -> TeacherStoreWriter:
    """Write the plan of a teacher, in a new store or in one that other teachers have begun.

    Args:
        run_id: The run that holds the lease of the folder.
        people: People of the store; in a store with other teachers they must be the same, field by
            field, as must ``image_sha256`` and ``views``.
        image_sha256: (M, 32) uint8, digest of every image file.

    Raises:
        StoreError: the store has a teacher of this name, or something else is at the path already.
        SchemaError: people or views contradict themselves.
        IdentityError: people, images or views are not the store's; names the field.
    """
    others = read_entries(folder) if folder.size("zarr.json") is not None else {}
    if teacher.name in others:
        raise StoreError(
            f"{folder} has a teacher {teacher.name!r}; use --resume, or choose another path or "
            f"--teacher-name"
        )
    stored = None
    if others:
        shared, stored = read_shared_plan(folder)
        compare_people(stored.people, people)
        compare_views(shared.views, views_identity(views).to_json())
        sections = (shared.people, shared.views)
    else:
        sections = (people_identity(people), views_identity(views))
    codec = teacher.codec(sections[1].num_views, people)
    identity = StoreIdentity(dict(teacher.identity), *sections, codec, teacher.optional)
    entry = _new_entry(teacher, identity)
    layout = layout_of(folder, entry)
    if stored is not None:
        require_same_images(layout, stored, image_sha256, ())
    arrays = {} if others else plan_arrays(people, image_sha256, views)
    require_lease(folder, run_id)
    publish_plan(layout, entry, others, arrays)
    return TeacherStoreWriter(layout, entry, run_id)


def read_shared_plan(folder: StoreFolder) -> tuple[StoreIdentity, StoredPlan]:
    """Return the plan that the teachers of a store share, and the identity of one of them.

    Raises:
        StoreError: there is no store, or people or views are damaged.
    """
    entry = next(iter(read_entries(folder).values()))
    return entry.identity, read_plan(layout_of(folder, entry))


def compare_views(stored: ViewsIdentity, now: Mapping[str, Any], way_out: str = WAY_OUT) -> None:
    """Refuse views that are not those of a store.

    Args:
        stored: The identity's section ``views``.
        now: The given ones of its fields: ``num_views`` (V), ``input_size_hw``, ``seed``,
            ``recipe``, ``arrays``.

    Raises:
        IdentityError: names the field, both values and the way out.
    """
    ours, theirs = {"views": stored.to_json()}, {"views": {**stored.to_json(), **now}}
    compare_identity(ours, theirs, ["views.num_views"], GROWING)
    compare_identity(ours, theirs, way_out=way_out)


def _new_entry(teacher: NewTeacher, identity: StoreIdentity) -> TeacherEntry:
    """Return the entry of a teacher whose part is incomplete, exactly as it will be read back.

    Raises:
        SchemaError: the metadata are too large or too deep, or a size is out of bounds.
    """
    recipe, provenance = dict(teacher.recipe), dict(teacher.provenance)
    entry = TeacherEntry(teacher.name, identity, recipe, provenance, content_sha256=None)
    document = parse_json(canonical_json(root_document({teacher.name: entry})), "zarr.json")
    return TeacherEntry.from_json(teacher.name, document["attributes"]["teachers"][teacher.name])
