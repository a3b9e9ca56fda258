"""Recovery of a store that was begun: its damaged shards, and images that can be read again."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.opening import StoredPlan, StoreLayout, layout_of
from pipeline.teacher_store.publishing import publish_array
from store_schemas.checking import file_faults
from store_schemas.errors import IdentityError, StoreError
from store_schemas.layout import IMAGE_SHA256
from store_schemas.manifest import Manifest, shards_of_other_images
from store_schemas.root_metadata import read_entries


def bad_shards(
    layout: StoreLayout,
    manifest: Manifest,
    plan: StoredPlan | None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[int, list[str]]:
    """Return all faults of the shards that are present, by shard; every file is read.

    Args:
        plan: Its image digests are compared with those of the shards; None: they are not.
        on_progress: Called with the number of shards checked since the last call.
    """
    found: dict[int, list[str]] = {}
    for receipt in manifest.receipts():
        faults = found.setdefault(receipt.shard, [])
        try:
            faults += map(str, file_faults(layout, receipt))
        except StoreError as error:
            faults.append(str(error))
        on_progress(1)
    if plan is not None:
        image_index = plan.people.image_index
        for shard, _, _ in shards_of_other_images(manifest, plan.image_sha256, image_index):
            found[shard].append("people/image_sha256 has other images than it was written from")
    on_progress(int((~manifest.is_present).sum()))
    return {shard: faults for shard, faults in found.items() if faults}


def replace_images(
    layout: StoreLayout, plan: StoredPlan, image_sha256: NDArray[np.uint8], shards: Iterable[int]
) -> None:
    """Store the digests of images that can be read again, for shards not written from them.

    Args:
        image_sha256: (M, 32) uint8, the images' digests now.
        shards: Shards whose images may have changed, if no other shard needs them as they were.

    Raises:
        IdentityError: another image has changed; names it.
    """
    require_same_images(layout, plan, image_sha256, shards)
    if (plan.image_sha256 != image_sha256).any():
        publish_array(layout.folder, layout.specs[f"people/{IMAGE_SHA256}"], image_sha256)


def require_same_images(
    layout: StoreLayout, plan: StoredPlan, image_sha256: NDArray[np.uint8], shards: Iterable[int]
) -> None:
    """Refuse images that changed, except those that no shard but ``shards`` needs.

    Args:
        image_sha256: (M, 32) uint8, the images' digests now.
        shards: Shards whose images may have changed, if no other shard needs them as they were.

    Raises:
        IdentityError: another image has changed; names it.
    """
    people, stored = plan.people, plan.image_sha256
    may_change, is_needed = (np.zeros(len(people.image_id), np.bool_) for _ in range(2))
    changing = set(shards)
    for shard in range(layout.dimensions.num_shards):
        rows = layout.dimensions.shard_rows(shard)
        images = people.image_index[rows.start : rows.stop]
        (may_change if shard in changing else is_needed)[images] = True
    is_needed |= _is_needed_by_others(layout, plan)
    differs = (stored != image_sha256).any(axis=1)
    refused = np.flatnonzero(differs & (is_needed | ~may_change))
    if len(refused):
        image = int(refused[0])
        was, now = (digests[image].tobytes().hex()[:12] for digests in (stored, image_sha256))
        raise IdentityError(
            f"identity field 'people.image_sha256' differs: the store was begun with image "
            f"{people.image_name[image]!r} of sha256 {was}, now it is {now}; give the image as it "
            f"was, write another store, or accept images that no shard was written from: with "
            f"--accept-mended-images, of a complete store by distil store repair"
        )


def _is_needed_by_others(layout: StoreLayout, plan: StoredPlan) -> NDArray[np.bool_]:
    """Return (M,), true for the images that a shard of another teacher was written from."""
    is_needed = np.zeros(len(plan.people.image_id), np.bool_)
    for name, entry in read_entries(layout.folder).items():
        if name == layout.teacher:
            continue
        other = layout_of(layout.folder, entry)
        for shard in range(other.dimensions.num_shards):
            # a receipt that cannot be read may be that of a good shard
            if entry.is_complete or layout.folder.size(other.receipt_name(shard)):
                rows = other.dimensions.shard_rows(shard)
                is_needed[plan.people.image_index[rows.start : rows.stop]] = True
    return is_needed
