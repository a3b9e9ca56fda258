"""Write a teacher store: the plan, then shard by shard, then the manifest.

Chunks are encoded by zarr in memory and published through ``file_layer``: zarr's own local store
reads an existing shard before it rewrites it, so that a torn one could never be replaced, and
makes nothing durable. The root's ``zarr.json`` is the last file of the plan and is rewritten once,
when the store is complete; a kill between any two files leaves what ``resume`` carries on from.

A writer holds no file and no array, so it can be sent to worker processes. Two of them must never
write the same shard at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline import file_layer
from pipeline.coco.people import People
from pipeline.teacher_store.manifest import (
    Manifest,
    ShardReceipt,
    has_shard_files,
    manifest_of_receipts,
    read_receipt,
    receipt_path,
)
from pipeline.teacher_store.opening import (
    StoreLayout,
    TeacherEntry,
    layout_of,
    read_entry,
    read_plan,
)
from pipeline.teacher_store.plan import (
    PLANNED_SECTIONS,
    ViewPlan,
    codec_identity,
    people_arrays,
    people_identity,
    views_arrays,
    views_identity,
)
from pipeline.teacher_store.publishing import (
    encode_shard,
    publish_document,
    publish_manifest,
    publish_plan,
)
from store_schemas.errors import IncompleteError, StoreError
from store_schemas.identity import as_json, canonical_json, compare_identity, fingerprint, flatten
from store_schemas.metadata import parse_json
from store_schemas.teacher_store import SCHEMA, Status, default_rows_per_shard


@dataclass
class TeacherStoreWriter:
    """One teacher's store while it grows; made by ``create`` or ``resume``."""

    layout: StoreLayout
    entry: TeacherEntry

    @classmethod
    def create(
        cls,
        path: Path,
        people: People,
        image_sha256: NDArray[np.uint8],
        views: ViewPlan,
        teacher_name: str,
        identity: Mapping[str, Any],
        recipe: Mapping[str, Any],
        provenance: Mapping[str, Any],
        heatmap_size_hw: tuple[int, int],
        threshold: float,
        rows_per_shard: int | None = None,
    ) -> Self:
        """Write the plan of a new store.

        Args:
            image_sha256: (M, 32) uint8, digest of every image file.
            identity: What the teacher is; sections that the store adds itself may be given too and
                must then agree.
            recipe: How it is executed; resuming under another is refused unless allowed.
            provenance: Versions, hardware, paths: recorded, never compared.
            threshold: Heat below it is stored as 0.
            rows_per_shard: People per shard; None: about a thousand views.

        Raises:
            StoreError: something else is at the path already.
            SchemaError: people or views contradict themselves.
            IdentityError: the identity's own people, views or codec are not these.
        """
        k, v = people.skeleton.num_keypoints, views.image_to_crop.shape[1]
        rows = rows_per_shard or default_rows_per_shard(v, k, heatmap_size_hw)
        planned = {
            "schema": SCHEMA,
            "people": people_identity(people, image_sha256),
            "views": views_identity(views),
            "codec": codec_identity(heatmap_size_hw, threshold, rows),
        }
        whole = {**identity, **planned}
        _compare(whole, identity, "leave it to the store, or give the same people, views and codec")
        entry = _new_entry(teacher_name, whole, recipe, provenance)
        writer = cls(layout_of(Path(path), teacher_name, entry.identity), entry)
        arrays = {f"people/{n}": a for n, a in people_arrays(people, image_sha256).items()}
        arrays |= {f"views/{n}": a for n, a in views_arrays(views).items()}
        publish_plan(writer.layout, entry, arrays)
        return writer

    @classmethod
    def resume(
        cls,
        path: Path,
        identity: Mapping[str, Any],
        recipe: Mapping[str, Any],
        teacher_name: str | None = None,
        allow_other_recipe: bool = False,
    ) -> Self:
        """Carry on where a writer stopped; no other may be writing.

        Temporary files are swept, and shards whose files are not those of their receipt (lengths
        and sha256) become pending again.

        Args:
            identity: As in ``create``; add the sections ``people`` (``people_identity``) and
                ``views`` (``views_identity``) to have them compared too.

        Raises:
            IdentityError: identity or recipe differ; names the field.
            StoreError: what is there cannot be resumed.
        """
        root = Path(path)
        entry = read_entry(root, teacher_name)
        _compare(
            entry.identity,
            identity,
            way_out="resume with what the store was made from, or write to another path",
        )
        if not allow_other_recipe:
            compare_identity(
                {"execution_recipe": entry.execution_recipe},
                {"execution_recipe": dict(recipe)},
                way_out="resume with the store's recipe, or allow another one explicitly",
            )
        layout = layout_of(root, entry.teacher, entry.identity)
        file_layer.sweep_temporaries(root)
        read_plan(layout, entry.identity)
        writer = cls(layout, entry)
        if writer.is_complete:
            writer._remove_receipts()
        else:
            writer._drop_bad_receipts()
        return writer

    @property
    def is_complete(self) -> bool:
        return self.entry.content is not None

    @property
    def num_shards(self) -> int:
        return self.layout.dimensions.num_shards

    @property
    def threshold(self) -> float:
        """Heat below it is stored as 0."""
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
        heatmaps: NDArray[np.uint8],
        outputs: NDArray[np.float32],
        status: NDArray[np.uint8],
    ) -> ShardReceipt:
        """Publish a whole shard, then its receipt; a shard that is there already is replaced.

        Args:
            heatmaps: (n, V, K, Hh, Wh) uint8 of the shard's n instances.
            outputs: (n, V, K, 4) as (scale, confidence, x, y), crop pixels.
            status: (n, V) uint8; fill values replace what a view that is not OK left there.

        Raises:
            SchemaError: another shape or dtype, or an output that contradicts its status.
            StoreError: the store is complete.
        """
        if self.is_complete:
            raise StoreError(
                f"{self.layout.root} is complete and shard {shard} cannot be written; write "
                f"another store"
            )
        rows = self.shard_rows(shard)
        files = encode_shard(self.layout, shard, heatmaps, outputs, status)
        # A receipt must never speak of files that are just being replaced.
        file_layer.remove(receipt_path(self.layout.folder, shard))
        lengths, digests = [], []
        for name, data in files:
            spec = self.layout.teacher_specs[name]
            file_layer.publish(self.layout.folder / name / spec.chunk_key(shard), data)
            lengths.append(len(data))
            digests.append(sha256(data).hexdigest())
        counts = np.bincount(status.ravel(), minlength=len(Status)).tolist()
        span = (rows.start, rows.stop)
        receipt = ShardReceipt(shard, span, tuple(lengths), tuple(digests), tuple(counts))
        file_layer.publish(
            receipt_path(self.layout.folder, shard), receipt.to_json(self.entry.fingerprint)
        )
        return receipt

    def finish(self) -> str:
        """Write the manifest, declare the store complete and return its content's sha256.

        Raises:
            IncompleteError: shards are missing; says how many are there.
        """
        if self.entry.content is None:
            manifest = self._whole_manifest()
            publish_manifest(self.layout, manifest)
            self.entry = replace(self.entry, content=manifest.content)
            publish_document(self.layout.root, "", self.entry.root_document())
        self._remove_receipts()
        assert self.entry.content is not None
        return self.entry.content

    def _receipt(self, shard: int) -> ShardReceipt | None:
        folder, dimensions = self.layout.folder, self.layout.dimensions
        return read_receipt(folder, shard, dimensions, self.entry.fingerprint)

    def _drop_bad_receipts(self) -> None:
        for shard in range(self.num_shards):
            try:
                receipt = self._receipt(shard)
                is_good = receipt is None or has_shard_files(
                    self.layout.folder, self.layout.teacher_specs, receipt, read=True
                )
            except StoreError:
                is_good = False
            if not is_good:
                file_layer.remove(receipt_path(self.layout.folder, shard))

    def _remove_receipts(self) -> None:
        folder = self.layout.folder
        file_layer.remove(*(receipt_path(folder, shard) for shard in range(self.num_shards)))

    def _whole_manifest(self) -> Manifest:
        receipts = [self._receipt(shard) for shard in range(self.num_shards)]
        folder, specs = self.layout.folder, self.layout.teacher_specs
        missing = [
            shard
            for shard, receipt in enumerate(receipts)
            if receipt is None or not has_shard_files(folder, specs, receipt, read=False)
        ]
        if missing:
            raise IncompleteError(
                f"{self.layout.root} has {self.num_shards - len(missing)} of {self.num_shards} "
                f"shards, the first missing one is {missing[0]}; run again with --resume"
            )
        return manifest_of_receipts(receipts)


def _new_entry(
    teacher: str,
    identity: Mapping[str, Any],
    recipe: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> TeacherEntry:
    whole = as_json(identity)
    entry = TeacherEntry(
        teacher=teacher,
        identity=whole,
        fingerprint=fingerprint(whole),
        execution_recipe=as_json(recipe),
        provenance=as_json(provenance),
        content=None,
    )
    # refuse now, not when a day's work is read back, what is too large or too deep
    parse_json(canonical_json(entry.root_document()), "zarr.json")
    return entry


def _compare(whole: Mapping[str, Any], given: Mapping[str, Any], way_out: str) -> None:
    """Compare an identity with a caller's, who need not repeat what the store adds itself."""
    ours = {name: value for name, value in whole.items() if name not in PLANNED_SECTIONS}
    theirs = {name: value for name, value in given.items() if name not in PLANNED_SECTIONS}
    compare_identity(ours, theirs, way_out=way_out)
    repeated = {name: value for name, value in given.items() if name in PLANNED_SECTIONS}
    compare_identity(whole, repeated, fields=flatten(as_json(repeated)), way_out=way_out)
