"""Write a teacher store: the plan, then shard by shard, then the manifest.

Chunks are encoded in memory and published through ``storage.files``: zarr's own local store
reads an existing shard before it rewrites it, so that a torn one could never be replaced, and
makes nothing durable. The root's ``zarr.json`` is the last file of the plan and is rewritten once,
when the store is complete; a kill between any two files leaves what ``resume`` carries on from.
A writer holds no file and no array, so it can be sent to worker processes; it publishes only while
the store's lease bears its run. What a worker was writing as it was killed is swept at the end.
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
from pipeline.teacher_store.entries import TeacherEntry, compare_given, new_entry
from pipeline.teacher_store.layout import StoreLayout, layout_of
from pipeline.teacher_store.manifest import (
    Manifest,
    ShardReceipt,
    bad_shard_files,
    manifest_of_receipts,
    read_receipt,
)
from pipeline.teacher_store.opening import read_entries, read_entry, read_plan
from pipeline.teacher_store.plan import (
    ViewPlan,
    codec_identity,
    people_arrays,
    people_identity,
    views_arrays,
    views_identity,
)
from pipeline.teacher_store.publishing import (
    encode_shard,
    publish_manifest,
    publish_plan,
    publish_root,
)
from pipeline.teacher_store.recovery import bad_receipts, replace_images, require_same_images
from pipeline.wording import counted
from store_schemas.chunks import Run
from store_schemas.errors import IncompleteError, StoreError
from store_schemas.heatmap_codec import NOT_MEASURED, CodecError
from store_schemas.identity import compare_identity
from store_schemas.optional_arrays import NONE, OptionalArrays
from store_schemas.profiles import DEFAULT_PROFILE, PROFILES, HeatmapProfile
from store_schemas.teacher_store import SCHEMA, Status, default_rows_per_shard


@dataclass
class TeacherStoreWriter:
    """One teacher's store while it grows; made by ``create`` or ``resume``."""

    layout: StoreLayout
    entry: TeacherEntry
    run_id: str
    """The run that holds the store's lease."""

    @classmethod
    def create(
        cls,
        folder: StoreFolder,
        run_id: str,
        people: People,
        image_sha256: NDArray[np.uint8],
        views: ViewPlan,
        teacher_name: str,
        identity: Mapping[str, Any],
        recipe: Mapping[str, Any],
        provenance: Mapping[str, Any],
        heatmap_size_hw: tuple[int, int],
        threshold: float,
        profile: HeatmapProfile = PROFILES[DEFAULT_PROFILE],
        rows_per_shard: int | None = None,
        optional: OptionalArrays = NONE,
    ) -> Self:
        """Write the plan of a new store.

        Args:
            run_id: The run that holds the lease of the folder.
            image_sha256: (M, 32) uint8, digest of every image file.
            identity: What the teacher is; sections that the store adds itself may be given too and
                must then agree.
            recipe: How it is executed; resuming under another is refused unless allowed.
            provenance: Versions, hardware, paths: recorded, never compared.
            threshold: Largest error of heat far from a map's peak.
            rows_per_shard: People per shard; None: about a thousand views.
            optional: What is kept beside heatmaps.

        Raises:
            StoreError: something else is at the path already.
            SchemaError: people or views contradict themselves.
            IdentityError: the identity's own people, views or codec are not these.
        """
        k, v = people.skeleton.num_keypoints, views.image_to_crop.shape[1]
        view_bytes = k * heatmap_size_hw[0] * heatmap_size_hw[1] * profile.bytes_per_cell
        rows = rows_per_shard or default_rows_per_shard(v, max(view_bytes, optional.view_bytes(k)))
        planned = {
            "schema": SCHEMA,
            "people": people_identity(people),
            "views": views_identity(views),
            "codec": codec_identity(profile, heatmap_size_hw, threshold, rows),
            **optional.to_json(),
        }
        whole = {**identity, **planned}
        way_out = "leave it to the store, or give the same people, views and codec"
        compare_given(whole, identity, way_out)
        entry = new_entry(teacher_name, whole, recipe, provenance)
        writer = cls(layout_of(folder, teacher_name, entry.identity), entry, run_id)
        arrays = {f"people/{n}": a for n, a in people_arrays(people, image_sha256).items()}
        arrays |= {f"views/{n}": a for n, a in views_arrays(views).items()}
        require_lease(folder, run_id)
        publish_plan(writer.layout, entry, arrays)
        return writer

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
            identity: As in ``create``; add the sections ``people`` (``people_identity``) and
                ``views`` (``views_identity``) to have them compared too.
            image_sha256: (M, 32) uint8, the images' digests now; None: not compared.
            accept_mended_images: Take the digests of images that no shard was written of.

        Raises:
            IdentityError: identity or recipe differ, or an image that a shard was written of has
                changed; names the field.
            StoreError: what is there cannot be resumed.
        """
        entry = read_entry(folder, teacher_name)
        way_out = "resume with what the store was made from, or write to another path"
        compare_given(entry.identity, identity, way_out)
        if not allow_other_recipe:
            compare_identity(
                {"execution_recipe": entry.execution_recipe},
                {"execution_recipe": dict(recipe)},
                way_out="resume with the store's recipe, or allow another one explicitly",
            )
        layout = layout_of(folder, entry.teacher, entry.identity)
        require_lease(folder, run_id)
        folder.sweep()
        plan = read_plan(layout, entry.identity)
        writer = cls(layout, entry, run_id)
        if writer.is_complete:
            if image_sha256 is not None:
                require_same_images(layout, plan, image_sha256, shards=())
            writer._remove_receipts()
            return writer
        for shard in bad_receipts(layout, entry.fingerprint, plan):
            folder.remove(layout.receipt_name(shard))
        if image_sha256 is not None:
            mended = set(writer.pending_shards()) if accept_mended_images else set()
            replace_images(layout, plan, image_sha256, mended)
        return writer

    @property
    def is_complete(self) -> bool:
        return self.entry.content is not None

    @property
    def num_shards(self) -> int:
        return self.layout.dimensions.num_shards

    @property
    def profile(self) -> HeatmapProfile:
        return self.layout.dimensions.profile

    @property
    def threshold(self) -> float:
        """Largest error of heat far from a map's peak."""
        return float(self.entry.identity["codec"]["threshold"])

    def shard_rows(self, shard: int) -> range:
        """Return the instances of a shard."""
        return self.layout.dimensions.shard_rows(shard)

    def pending_shards(self) -> list[int]:
        """Return the shards without a receipt, as the disk has them now."""
        if self.is_complete:
            return []
        return [shard for shard in range(self.num_shards) if self._receipt(shard) is None]

    def write_shard(
        self,
        shard: int,
        heatmaps: NDArray[Any],
        outputs: NDArray[np.float32],
        status: NDArray[np.uint8],
        images_sha256: str,
        codec_error: CodecError = NOT_MEASURED,
        run: Run = map,
        optional: Mapping[str, NDArray[Any]] | None = None,
    ) -> ShardReceipt:
        """Publish a whole shard, then its receipt; a shard that is there already is replaced.

        Args:
            heatmaps: (n, V, K, Hh, Wh) of the profile's dtype, of the shard's n instances.
            outputs: (n, V, K, 4) as (scale, confidence, x, y), crop pixels.
            status: (n, V) uint8; fill values replace what a view that is not OK left there.
            images_sha256: ``digest_of_images`` of the shard's people.
            codec_error: Measured over the shard's people that ``is_measured`` picks.
            run, optional: As for ``encode_shard``.

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
        # A receipt must never speak of files that are just being replaced.
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
        )
        require_lease(layout.folder, self.run_id)
        layout.folder.publish(layout.receipt_name(shard), receipt.to_json(self.entry.fingerprint))
        return receipt

    def finish(self) -> str:
        """Write the manifest, declare the store complete and return its content's sha256.

        Raises:
            IncompleteError: shards are missing; says how many are there.
            LeaseError: another run took over.
        """
        if self.entry.content is None:
            manifest = self._whole_manifest()
            require_lease(self.layout.folder, self.run_id)
            self.layout.folder.sweep()
            publish_manifest(self.layout, manifest)
            self._publish_entry(replace(self.entry, content=manifest.content))
        self._remove_receipts()
        assert self.entry.content is not None
        return self.entry.content

    def _publish_entry(self, entry: TeacherEntry) -> None:
        folder = self.layout.folder
        publish_root(folder, {**read_entries(folder), entry.teacher: entry})
        self.entry = entry

    def _receipt(self, shard: int) -> ShardReceipt | None:
        return read_receipt(self.layout, shard, self.entry.fingerprint)

    def _remove_receipts(self) -> None:
        self.layout.folder.remove(*map(self.layout.receipt_name, range(self.num_shards)))

    def _whole_manifest(self) -> Manifest:
        receipts = [self._receipt(shard) for shard in range(self.num_shards)]
        missing = [
            shard
            for shard, receipt in enumerate(receipts)
            if receipt is None or bad_shard_files(self.layout, receipt, read=False)
        ]
        if missing:
            raise IncompleteError(
                f"{self.layout.folder} has {self.num_shards - len(missing)} of "
                f"{counted(self.num_shards, 'shard')}, the first missing one is {missing[0]}; run "
                f"again with --resume"
            )
        return manifest_of_receipts(receipts, len(self.layout.shard_specs))
