"""What a store that was begun still holds: which shards are good, and which images came back."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.layout import StoreLayout, layout_of
from pipeline.teacher_store.manifest import bad_shard_files, digest_of_images, read_receipt
from pipeline.teacher_store.opening import StoredPlan, read_entries
from pipeline.teacher_store.plan import IMAGE_SHA256
from pipeline.teacher_store.publishing import publish_array
from store_schemas.errors import IdentityError, StoreError


def bad_receipts(layout: StoreLayout, fingerprint: str, plan: StoredPlan) -> dict[int, list[str]]:
    """Return, by shard, what is wrong with those that have a receipt; every file is read."""
    found = {}
    for shard in range(layout.dimensions.num_shards):
        rows = layout.dimensions.shard_rows(shard)
        image_index = plan.people.image_index[rows.start : rows.stop]
        try:
            receipt = read_receipt(layout, shard, fingerprint)
            if receipt is None:
                continue
            wrong = bad_shard_files(layout, receipt, read=True)
            if receipt.images_sha256 != digest_of_images(plan.image_sha256, image_index):
                wrong.append("people/image_sha256 speaks of other images")
        except StoreError as error:
            wrong = [str(error)]
        if wrong:
            found[shard] = wrong
    return found


def replace_images(
    layout: StoreLayout, plan: StoredPlan, image_sha256: NDArray[np.uint8], shards: Iterable[int]
) -> None:
    """Take the digests of images that came back, for shards that were not written of them.

    Args:
        image_sha256: (M, 32) uint8, the images' digests now.
        shards: Those whose images may have changed, if no other shard needs them as they were.

    Raises:
        IdentityError: another image has changed; names it.
    """
    require_same_images(layout, plan, image_sha256, shards)
    if (plan.image_sha256 != image_sha256).any():
        publish_array(layout.folder, layout.specs[f"people/{IMAGE_SHA256}"], image_sha256)


def require_same_images(
    layout: StoreLayout, plan: StoredPlan, image_sha256: NDArray[np.uint8], shards: Iterable[int]
) -> None:
    """Refuse images that changed, but for those that only some shards need.

    Args:
        image_sha256: (M, 32) uint8, the images' digests now.
        shards: Those whose images may have changed, if no other shard needs them as they were.

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
            f"was, write another store, or take images that no shard was written of: with "
            f"--accept-mended-images, of a complete store by distil store repair"
        )


def _is_needed_by_others(layout: StoreLayout, plan: StoredPlan) -> NDArray[np.bool_]:
    """Return (M,), true for the images that a shard of another teacher was written of."""
    is_needed = np.zeros(len(plan.people.image_id), np.bool_)
    for name, entry in read_entries(layout.folder).items():
        if name == layout.teacher:
            continue
        other = layout_of(layout.folder, name, entry.identity)
        for shard in range(other.dimensions.num_shards):
            # a receipt that cannot be read may speak of a good shard
            if entry.content is not None or layout.folder.size(other.receipt_name(shard)):
                rows = other.dimensions.shard_rows(shard)
                is_needed[plan.people.image_index[rows.start : rows.stop]] = True
    return is_needed
