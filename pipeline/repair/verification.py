"""Compare every byte of a store with what its metadata promise; all that is wrong is collected.

``opening`` and ``reader`` stop at the first fault, as whoever needs the data must. Here nothing is
needed: what cannot be read is named, and the rest is looked at all the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import resolve_image, sha256_file
from pipeline.coco.people import People
from pipeline.errors import PeopleError
from pipeline.storage.lease import LEASE_NAME
from pipeline.teacher_store.entries import TeacherEntry
from pipeline.teacher_store.layout import StoreLayout, layout_of
from pipeline.teacher_store.manifest import (
    Manifest,
    ShardReceipt,
    bad_shard_files,
    digest_of_images,
    manifest_of_receipts,
    read_receipt,
)
from pipeline.teacher_store.manifest_reading import read_manifest
from pipeline.teacher_store.opening import (
    StoredPlan,
    check_document,
    read_array,
    read_entries,
    read_plan,
)
from pipeline.teacher_store.plan import IMAGE_SHA256
from store_schemas.array_spec import group_metadata
from store_schemas.errors import StoreError
from store_schemas.identity import array_sha256, compare_identity
from store_schemas.stored_identity import group_documents

ALTERED = "the array was altered after the store was written: restore it from a copy"

OnProgress = Callable[[int], None]
"""Told how many more things were looked at."""


@dataclass
class StoreFaults:
    """All that is wrong with a store's own files, a line each."""

    metadata: list[str] = field(default_factory=list)
    """Of groups, arrays, people, views and the manifest."""
    shards: dict[int, list[str]] = field(default_factory=dict)
    """Of the shards that a receipt or the manifest speaks of."""
    foreign: list[str] = field(default_factory=list)
    """Names of files that no store has; they do no harm."""

    def shard_lines(self) -> list[str]:
        """Return what is wrong with shards, a line each."""
        return [f"shard {shard}: {what}" for shard, found in self.shards.items() for what in found]


@dataclass(frozen=True)
class VerifiedStore:
    """What could be read of a store, and all that is wrong with it."""

    faults: StoreFaults
    plan: StoredPlan | None
    """None: people or views are damaged."""
    manifest: Manifest | None
    """None: it is damaged, and so no shard could be compared with it."""


def verify_store(
    layout: StoreLayout, entry: TeacherEntry, on_progress: OnProgress = lambda _: None
) -> VerifiedStore:
    """Look at every file of a store, at its shards with their sha256.

    on_progress: told how many more shards were looked at.
    """
    faults = StoreFaults()
    for line in (*bad_documents(layout, entry), *bad_arrays(layout, entry).values()):
        _add_once(faults.metadata, line)
    plan, manifest = None, None
    try:
        plan = read_plan(layout, entry.identity, checks_documents=False)
    except StoreError as error:
        _add_once(faults.metadata, str(error))
    try:
        manifest, faults.shards = read_known_shards(layout, entry)
    except StoreError as error:
        _add_once(faults.metadata, str(error))
    else:
        faults.shards |= bad_shards(layout, manifest, plan, on_progress)
    faults.foreign += foreign_names(layout)
    return VerifiedStore(faults, plan, manifest)


def bad_documents(layout: StoreLayout, entry: TeacherEntry) -> list[str]:
    """Return what is wrong with the ``zarr.json`` of every group and array but the root."""
    found = []
    for path, document in documents_of(layout, entry).items():
        try:
            check_document(layout.folder, path, document)
        except StoreError as error:
            found.append(str(error))
    return found


def bad_arrays(layout: StoreLayout, entry: TeacherEntry) -> dict[str, str]:
    """Return what is wrong with the arrays of people, views and manifest, by path."""
    manifest = [] if entry.content is None else list(layout.manifest_specs.values())
    found = {}
    for spec in (*layout.plan_specs(), *manifest):
        try:
            _check_digest(entry, spec.path, read_array(layout.folder, spec))
        except StoreError as error:
            found[spec.path] = str(error)
    return found


def documents_of(layout: StoreLayout, entry: TeacherEntry) -> dict[str, dict[str, Any]]:
    """Return the ``zarr.json`` of every group and array but the root, as the identity implies."""
    documents = group_documents(entry.identity, layout.teacher)
    arrays = [*layout.plan_specs(), *layout.shard_specs.values()]
    if entry.content is not None:
        arrays += layout.manifest_specs.values()
        documents[f"{layout.teacher_path}/manifest"] = group_metadata()
    return documents | {spec.path: spec.metadata() for spec in arrays}


def read_known_shards(
    layout: StoreLayout, entry: TeacherEntry
) -> tuple[Manifest, dict[int, list[str]]]:
    """Return which shards there are, as ``read_manifest``, and what is wrong with receipts.

    A shard of a bad receipt counts as absent.

    Raises:
        StoreError: the manifest of a complete store is damaged.
    """
    if entry.content is not None:
        return read_manifest(layout, entry), {}
    receipts: list[ShardReceipt | None] = []
    faults: dict[int, list[str]] = {}
    for shard in range(layout.dimensions.num_shards):
        try:
            receipts.append(read_receipt(layout, shard, entry.fingerprint))
        except StoreError as error:
            faults[shard] = [str(error)]
            receipts.append(None)
    return manifest_of_receipts(receipts, len(layout.shard_specs)), faults


def bad_shards(
    layout: StoreLayout,
    manifest: Manifest,
    plan: StoredPlan | None,
    on_progress: OnProgress = lambda _: None,
) -> dict[int, list[str]]:
    """Return what is wrong with the shards that are there, by shard; every file is read.

    Args:
        plan: Its images are compared with those of the shards; None: they are not.
        on_progress: Told how many more shards were looked at.
    """
    found = {}
    for shard in range(layout.dimensions.num_shards):
        receipt = manifest.receipt(shard)
        if receipt is not None and (wrong := _bad_shard(layout, receipt, plan)):
            found[shard] = wrong
        on_progress(1)
    return found


def bad_images(
    people: People,
    image_sha256: NDArray[np.uint8],
    image_folder: Path,
    images: Iterable[int],
    on_progress: OnProgress = lambda _: None,
) -> dict[int, str]:
    """Return what is wrong with image files, by image.

    Args:
        image_sha256: (M, 32) uint8, what their bytes must digest to.
        images: Those to look at, as ``used_images`` gives them.
        on_progress: Told how many more images were read.
    """
    found = {}
    for image in images:
        expected = image_sha256[image].tobytes().hex()
        try:
            path = resolve_image(image_folder, people.image_name[image])
            if (got := sha256_file(path)) != expected:
                found[image] = (
                    f"image {str(path)!r} must have sha256 {expected[:12]}, got {got[:12]}"
                )
        except PeopleError as error:
            found[image] = str(error)
        on_progress(1)
    return found


def used_images(people: People) -> list[int]:
    """Return the images that somebody stands in, in order."""
    used: list[int] = np.unique(people.image_index).tolist()
    return used


def foreign_names(layout: StoreLayout) -> list[str]:
    """Return the files below a store's root that belong to none of its teachers."""
    known = {"zarr.json", LEASE_NAME}
    for name, entry in read_entries(layout.folder).items():
        one = layout_of(layout.folder, name, entry.identity)
        documents = {f"{path}/zarr.json" for path in documents_of(one, entry)}
        known |= documents | {f"{path}/zarr.json" for path in one.specs}
        known |= {spec.chunk_name(c) for spec in one.specs.values() for c in range(spec.num_chunks)}
        known |= {f"{one.teacher_path}/manifest/zarr.json"}
        known |= {one.receipt_name(shard) for shard in range(one.dimensions.num_shards)}
    return [name for name in layout.folder.names() if name not in known]


def _bad_shard(layout: StoreLayout, receipt: ShardReceipt, plan: StoredPlan | None) -> list[str]:
    try:
        wrong = bad_shard_files(layout, receipt, read=True)
    except StoreError as error:
        wrong = [str(error)]
    if plan is not None:
        image_index = plan.people.image_index[slice(*receipt.rows)]
        if receipt.images_sha256 != digest_of_images(plan.image_sha256, image_index):
            wrong.append("people/image_sha256 speaks of other images than it was written from")
    return wrong


def _check_digest(entry: TeacherEntry, path: str, values: NDArray[Any]) -> None:
    """Compare an array with the identity's sha256 of it, if the identity speaks of it."""
    section, _, name = path.partition("/")
    if section in {"people", "views"} and name != IMAGE_SHA256:
        now = {section: {"arrays": {name: array_sha256(values)}}}
        compare_identity(entry.identity, now, [f"{section}.arrays.{name}"], way_out=ALTERED)


def _add_once(lines: list[str], line: str) -> None:
    if line not in lines:
        lines.append(line)
