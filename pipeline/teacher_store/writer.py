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

from pipeline.storage.folder import StoreFolder
from pipeline.storage.lease import require_lease
from pipeline.teacher_store.opening import StoreLayout, layout_of, read_plan
from pipeline.teacher_store.publishing import encode_shard, publish_manifest, publish_root
from pipeline.teacher_store.recovery import bad_shards, replace_images, require_same_images
from pipeline.wording import counted
from store_schemas.checking import file_faults
from store_schemas.chunks import Run
from store_schemas.errors import IncompleteError, StoreError
from store_schemas.heatmap_codec import NOT_MEASURED, CodecError
from store_schemas.identity import as_json, canonical_json, compare_identity, flatten
from store_schemas.manifest import Manifest, ShardReceipt, read_manifest, read_receipt
from store_schemas.profiles import HeatmapProfile
from store_schemas.root_metadata import TeacherEntry, read_entries, read_entry
from store_schemas.teacher_store import Status


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
    def profile(self) -> HeatmapProfile:
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
            self._publish_entry(replace(self.entry, content_sha256=manifest.content_sha256))
        self._remove_receipts()
        assert self.entry.content_sha256 is not None
        return self.entry.content_sha256

    def _publish_entry(self, entry: TeacherEntry) -> None:
        folder = self.layout.folder
        publish_root(folder, {**read_entries(folder), entry.teacher: entry})
        self.entry = entry

    def _receipt(self, shard: int) -> ShardReceipt | None:
        return read_receipt(self.layout, shard)

    def _remove_receipts(self) -> None:
        self.layout.folder.remove(*map(self.layout.receipt_name, range(self.num_shards)))

    def _whole_manifest(self) -> Manifest:
        receipts = [self._receipt(shard) for shard in range(self.num_shards)]
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
