"""Which shards of a store have to be done again, and with which images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import decode_image_with_sha256, resolve_image
from pipeline.coco.people import People
from pipeline.errors import ConfigError, ImageError
from pipeline.repair.mending import unreadable_rows
from pipeline.teacher_store.layout import StoreLayout
from pipeline.teacher_store.manifest import Manifest
from pipeline.teacher_store.opening import StoredPlan
from pipeline.teacher_store.recovery import require_same_images
from pipeline.wording import counted
from store_schemas.teacher_store import Status


@dataclass(frozen=True)
class Redo:
    """What a repair does again."""

    reasons: Mapping[int, str]
    """By shard; in order."""
    image_sha256: NDArray[np.uint8]  # (M, 32), of the images that the shards are done from
    lenient: frozenset[int]
    """Shards that lacked people of unreadable images before, and may lack them again."""
    notes: tuple[str, ...]
    """What could not be looked at or taken, a sentence each."""


def plan_redo(
    layout: StoreLayout,
    manifest: Manifest,
    plan: StoredPlan,
    faults: Mapping[int, list[str]],
    image_folder: Path | None,
    *,
    accept_mended_images: bool,
) -> Redo:
    """Say which shards have to be done again.

    Args:
        faults: What is wrong with damaged shards; those without a receipt are found here.
        image_folder: None: there is none, so that no image can have come back.

    Raises:
        ConfigError: shards have to be done again, but there are no images.
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
                f"{layout.folder}: {counted(len(reasons), 'shard')} must be done again, but the "
                "images are not where they were; name their folder with --images"
            )
        if missing:
            people = counted(len(rows), "person")
            notes.append(f"{people} without an image; name the folder with --images")
        return Redo({}, plan.image_sha256, frozenset(), tuple(notes))
    back = _images_that_came_back(plan, image_folder, missing, accept_mended_images, notes)
    for row in rows[np.isin(plan.people.image_index[rows], back)].tolist():
        image = plan.people.image_name[plan.people.image_index[row]]
        shard = row // layout.dimensions.rows_per_shard
        reasons.setdefault(shard, f"image {image!r} can be read again")
    redone = sorted(reasons)
    lenient = frozenset(
        shard for shard in redone if manifest.status_counts[shard, Status.IMAGE_UNREADABLE]
    )
    digests = _digests_now(layout, plan, image_folder, redone, lenient, set(missing) - set(back))
    may_change = set(redone) if accept_mended_images else set()
    require_same_images(layout, plan, digests, may_change)
    return Redo({shard: reasons[shard] for shard in redone}, digests, lenient, tuple(notes))


def _images_that_came_back(
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
                "planned one; --accept-mended-images takes it"
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
    """Return (M, 32) uint8: of the images of these shards as they are now, else as stored.

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
    pixels, digest = decode_image_with_sha256(path)
    expected_hw = tuple(people.image_size_hw[image].tolist())
    if pixels.shape[:2] != expected_hw:
        raise ImageError(
            f"image {str(path)!r} is {pixels.shape[0]} x {pixels.shape[1]} pixels (height x "
            f"width), its annotation says {expected_hw[0]} x {expected_hw[1]}; give the "
            "annotated image"
        )
    return digest
