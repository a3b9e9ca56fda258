"""Which shards a store has: of a complete store its manifest, else the receipts that are there."""

import numpy as np

from pipeline.teacher_store.entries import TeacherEntry
from pipeline.teacher_store.layout import StoreLayout
from pipeline.teacher_store.manifest import (
    Manifest,
    check_manifest,
    manifest_of_receipts,
    read_receipt,
)
from pipeline.teacher_store.opening import check_document, read_array
from store_schemas.array_spec import group_metadata
from store_schemas.chunks import RESTORE
from store_schemas.errors import CorruptError


def read_manifest(layout: StoreLayout, entry: TeacherEntry) -> Manifest:
    """Return which shards there are: of a complete store its arrays, else its receipts.

    Raises:
        SchemaError: a receipt or metadata that this program never writes.
        CorruptError: the manifest is not the one that the root speaks of.
    """
    if entry.content is None:
        shards = range(layout.dimensions.num_shards)
        receipts = (read_receipt(layout, shard, entry.fingerprint) for shard in shards)
        return manifest_of_receipts(receipts, len(layout.shard_specs))
    check_document(layout.folder, f"{layout.teacher_path}/manifest", group_metadata())
    arrays = {name: read_array(layout.folder, s) for name, s in layout.manifest_specs.items()}
    manifest = Manifest(np.ones(layout.dimensions.num_shards, np.bool_), **arrays)
    check_manifest(manifest, layout)
    if manifest.content != entry.content:
        raise CorruptError(
            f"{layout.folder}: content must be {entry.content}, the manifest's sha256 is "
            f"{manifest.content}{RESTORE}"
        )
    return manifest
