"""Compare every byte of a store with its metadata and digests, and collect all faults.

``opening`` and ``reader`` stop at the first fault, as whoever needs the data must. Here nothing is
needed: what cannot be read is named, and the rest is checked all the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import resolve_image, sha256_file
from pipeline.coco.people import People
from pipeline.errors import PeopleError
from pipeline.storage.lease import LEASE_NAME
from pipeline.teacher_store.opening import StoredPlan, StoreLayout, layout_of, read_plan
from pipeline.teacher_store.recovery import bad_shards
from store_schemas.checking import array_faults, document_faults
from store_schemas.errors import StoreError
from store_schemas.manifest import Manifest, read_manifest
from store_schemas.root_metadata import TeacherEntry, read_entries

OnProgress = Callable[[int], None]
"""Called with the number of things checked since the last call."""


@dataclass
class StoreFaults:
    """All faults of a store's own files, a line each."""

    metadata: list[str] = field(default_factory=list)
    """Faults of groups, arrays, people, views and the manifest."""
    shards: dict[int, list[str]] = field(default_factory=dict)
    """Faults of the shards that have a receipt or are in the manifest, by shard."""
    foreign: list[str] = field(default_factory=list)
    """Names of files that belong to no store; they do no harm."""

    def shard_lines(self) -> list[str]:
        """Return the faults of shards, a line each."""
        return [f"shard {shard}: {what}" for shard, found in self.shards.items() for what in found]


@dataclass(frozen=True)
class VerifiedStore:
    """All faults of a store, and the parts of it that could be read."""

    faults: StoreFaults
    plan: StoredPlan | None
    """None: people or views are damaged."""
    manifest: Manifest | None
    """None: it is damaged, so no shard could be compared with it."""


def verify_store(
    layout: StoreLayout, entry: TeacherEntry, on_progress: OnProgress = lambda _: None
) -> VerifiedStore:
    """Read every file of a store and compare it with metadata and digests.

    on_progress: called with the number of shards checked since the last call.
    """
    faults, plan, manifest = StoreFaults(), None, None
    found = [*document_faults(layout, entry), *array_faults(layout, entry)]
    lines = [str(error) for _, error in found]
    try:
        plan = read_plan(layout, checks_documents=False)
    except StoreError as error:
        lines.append(str(error))
    bad_receipts: dict[int, StoreError] = {}
    try:
        manifest = read_manifest(layout, entry, bad_receipts)
    except StoreError as error:
        lines.append(str(error))
    else:
        faults.shards = {shard: [str(error)] for shard, error in bad_receipts.items()}
        faults.shards |= bad_shards(layout, manifest, plan, on_progress)
    faults.metadata = list(dict.fromkeys(lines))  # the same fault may be found twice
    faults.foreign = foreign_names(layout)
    return VerifiedStore(faults, plan, manifest)


def bad_images(
    people: People,
    image_sha256: NDArray[np.uint8],
    image_folder: Path,
    images: Iterable[int],
    on_progress: OnProgress = lambda _: None,
) -> dict[int, str]:
    """Return the faults of image files, by image.

    Args:
        image_sha256: (M, 32) uint8, the expected digest of each image file.
        images: Images to read, as ``used_images`` returns them.
        on_progress: Called with the number of images read since the last call.
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
    for entry in read_entries(layout.folder).values():
        one = layout_of(layout.folder, entry)
        known |= {f"{path}/zarr.json" for path in one.documents(is_complete=True)}
        known |= {spec.chunk_name(c) for spec in one.specs.values() for c in range(spec.num_chunks)}
        known |= {one.receipt_name(shard) for shard in range(one.dimensions.num_shards)}
    return [name for name in layout.folder.names() if name not in known]
