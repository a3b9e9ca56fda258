"""Which shards of a store are to be written again, and from which images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import decode_image_bytes, read_image_bytes, resolve_image
from pipeline.coco.people import People
from pipeline.errors import ConfigError, ImageError
from pipeline.repair.metadata import read_shard_status
from pipeline.storage.lease import require_lease
from pipeline.teacher_store.plan import StoredPlan, StoreLayout
from pipeline.teacher_store.publishing import publish_entry
from pipeline.teacher_store.recovery import require_same_images
from pipeline.wording import counted
from store_schemas.manifest import Manifest
from store_schemas.metadata import canonical_json
from store_schemas.root_metadata import TeacherEntry
from store_schemas.teacher_store import Status


@dataclass(frozen=True)
class ShardRepair:
    """The shards that a repair writes again."""

    reasons: Mapping[int, str]
    """Why each shard is written again, by shard, in order."""
    image_sha256: NDArray[np.uint8]  # (M, 32), digests of the images to write from
    lenient: frozenset[int]
    """Shards that lacked people with unreadable images before, and may lack them again."""
    notes: tuple[str, ...]
    """Images that could not be read or accepted, a sentence each."""


def plan_shard_repair(
    layout: StoreLayout,
    manifest: Manifest,
    plan: StoredPlan,
    faults: Mapping[int, list[str]],
    image_folder: Path | None,
    *,
    accept_mended_images: bool,
) -> ShardRepair:
    """Decide which shards are to be written again.

    Args:
        faults: Faults of damaged shards; shards without a receipt are found here.
        image_folder: None: there is none, so no image can be read again.

    Raises:
        ConfigError: shards are to be written again, but there are no images.
        ImageError: an image that is needed cannot be read.
        IdentityError: an image that is needed has changed.
    """
    reasons = {shard: found[0] for shard, found in faults.items()}
    absent = np.flatnonzero(~manifest.is_present).tolist()
    reasons |= {shard: "it was never written" for shard in absent if shard not in reasons}
    good = [shard for shard in range(layout.dimensions.num_shards) if shard not in reasons]
    rows = unreadable_rows(layout, manifest, good)
    missing = np.unique(plan.people.image_index[rows]).tolist()
    notes: list[str] = []
    if image_folder is None:
        if reasons:
            raise ConfigError(
                f"{layout.folder}: {counted(len(reasons), 'shard')} must be written again, but "
                "the images are not where they were; name their folder with --images"
            )
        if missing:
            people = counted(len(rows), "person")
            notes.append(f"{people} without an image; name the folder with --images")
        return ShardRepair({}, plan.image_sha256, frozenset(), tuple(notes))
    back = _images_readable_again(plan, image_folder, missing, accept_mended_images, notes)
    for row in rows[np.isin(plan.people.image_index[rows], back)].tolist():
        image = plan.people.image_name[plan.people.image_index[row]]
        shard = row // layout.dimensions.rows_per_shard
        reasons.setdefault(shard, f"image {image!r} can be read again")
    repaired = sorted(reasons)
    lenient = frozenset(
        shard for shard in repaired if manifest.status_counts[shard, Status.IMAGE_UNREADABLE]
    )
    digests = _digests_now(layout, plan, image_folder, repaired, lenient, set(missing) - set(back))
    may_change = set(repaired) if accept_mended_images else set()
    require_same_images(layout, plan, digests, may_change)
    return ShardRepair(
        {shard: reasons[shard] for shard in repaired}, digests, lenient, tuple(notes)
    )


def unreadable_rows(
    layout: StoreLayout, manifest: Manifest, shards: Iterable[int]
) -> NDArray[np.int64]:
    """Return the instances, in order, whose image could not be read when these shards were written.

    Raises:
        CorruptError: a shard's status is damaged.
    """
    rows = [np.zeros(0, np.int64)]
    for shard in shards:
        if manifest.status_counts[shard, Status.IMAGE_UNREADABLE]:
            is_unreadable = read_shard_status(layout, shard) == Status.IMAGE_UNREADABLE
            start = layout.dimensions.shard_rows(shard).start
            rows.append(start + np.flatnonzero(is_unreadable.any(axis=1)))
    return np.concatenate(rows)


def reopen_store(
    layout: StoreLayout, entry: TeacherEntry, manifest: Manifest, shards: set[int], run_id: str
) -> TeacherEntry:
    """Make a complete store incomplete, without some shards; a writer then resumes it.

    First the other shards' receipts are written, which a complete store does not use, then the
    root declares the teacher incomplete: a kill in between leaves the store complete.

    Returns:
        The teacher's new entry in the root.
    """
    folder = layout.folder
    require_lease(folder, run_id)
    folder.remove(*(layout.receipt_name(shard) for shard in shards))
    for receipt in manifest.receipts():
        if receipt.shard not in shards:
            document = canonical_json(receipt.to_json(entry.fingerprint))
            folder.publish(layout.receipt_name(receipt.shard), document)
    require_lease(folder, run_id)
    reopened = replace(entry, content_sha256=None)
    publish_entry(folder, reopened)
    return reopened


def _images_readable_again(
    plan: StoredPlan, folder: Path, images: list[int], accept: bool, notes: list[str]
) -> list[int]:
    back = []
    for image in images:
        name = plan.people.image_name[image]
        try:
            digest = _digest_of_readable(plan.people, folder, image)
        except ImageError as error:
            notes.append(f"still left out: {error}")
            continue
        if accept or digest == plan.image_sha256[image].tobytes():
            back.append(image)
        else:
            notes.append(
                f"still left out: image {name!r} can be read again, but is another file than the "
                "planned one; --accept-mended-images accepts it"
            )
    return back


def _digests_now(
    layout: StoreLayout,
    plan: StoredPlan,
    folder: Path,
    shards: list[int],
    lenient: frozenset[int],
    still_missing: set[int],
) -> NDArray[np.uint8]:
    """Return image digests (M, 32) uint8: current for images of these shards, else as stored.

    An image that cannot be read keeps its stored digest where its people may be left out.
    """
    people: People = plan.people
    digests = plan.image_sha256.copy()
    may_lack: dict[int, bool] = {}
    for shard in shards:
        rows = layout.dimensions.shard_rows(shard)
        for image in np.unique(people.image_index[rows.start : rows.stop]).tolist():
            may_lack[image] = may_lack.get(image, True) and shard in lenient
    for image in may_lack.keys() - still_missing:
        try:
            digest = _digest_of_readable(people, folder, image)
        except ImageError as error:
            if may_lack[image]:
                continue
            raise ImageError(
                f"{error}; nothing was changed: the image is needed to write "
                f"{counted(len(shards), 'shard')} again; put it back, or leave its people out by "
                "cache-teacher --resume --skip-bad"
            ) from error
        digests[image] = np.frombuffer(digest, np.uint8)
    return digests


def _digest_of_readable(people: People, folder: Path, image: int) -> bytes:
    """Return the sha256 of an image file that can be decoded to its annotated size."""
    path = resolve_image(folder, people.image_name[image])
    file = read_image_bytes(path)
    pixels = decode_image_bytes(file.content, path)
    expected_hw = tuple(people.image_size_hw[image].tolist())
    if pixels.shape[:2] != expected_hw:
        raise ImageError(
            f"image {str(path)!r} is {pixels.shape[0]} x {pixels.shape[1]} pixels (height x "
            f"width), its annotation says {expected_hw[0]} x {expected_hw[1]}; give the "
            "annotated image"
        )
    return file.sha256
