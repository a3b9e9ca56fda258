"""Mend what follows from other bytes of a store, and reopen a complete one to redo some shards.

Groups and array metadata follow from the identity, the manifest's arrays from the files it speaks
of, the images' digests from the images. Nothing is guessed: a manifest is published only if it is
the one that the root's ``content`` was taken of, and digests only if every shard was written from
them. People, views and the codec's error follow from nothing here.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import resolve_image, sha256_file
from pipeline.errors import ConfigError
from pipeline.repair.verification import documents_of, read_known_shards
from pipeline.storage.lease import require_lease
from pipeline.teacher_store.entries import TeacherEntry
from pipeline.teacher_store.layout import StoreLayout, layout_of
from pipeline.teacher_store.manifest import Manifest, check_manifest, digest_of_images
from pipeline.teacher_store.manifest_reading import read_manifest
from pipeline.teacher_store.opening import (
    check_document,
    read_array,
    read_entries,
    read_plain_chunk,
)
from pipeline.teacher_store.plan import IMAGE_SHA256
from pipeline.teacher_store.publishing import publish_array, publish_document, publish_root
from store_schemas.chunks import RESTORE, decode_plain_chunk
from store_schemas.errors import CorruptError, StoreError
from store_schemas.names import unpack_names
from store_schemas.teacher_store import Status


def mend_documents(layout: StoreLayout, entry: TeacherEntry, run_id: str) -> list[str]:
    """Write every ``zarr.json`` that is not the one the identity implies; return their paths."""
    mended = []
    for path, document in documents_of(layout, entry).items():
        try:
            check_document(layout.folder, path, document)
        except StoreError:
            require_lease(layout.folder, run_id)
            publish_document(layout.folder, path, document)
            mended.append(path)
    return mended


def mend_manifest(layout: StoreLayout, entry: TeacherEntry, run_id: str) -> list[str]:
    """Rebuild the damaged arrays of a complete store's manifest; return their paths.

    Raises:
        CorruptError: what the files give is not what the root's ``content`` was taken of.
    """
    try:
        read_manifest(layout, entry)
    except StoreError:
        found = _readable(layout)
    else:
        return []
    damaged = [name for name in layout.manifest_specs if name not in found]
    # First what cannot be read; if that is not all, an array was altered with its checksum.
    for rebuilt in (damaged, list(_derivations(layout))):
        manifest = _rebuild(layout, found, rebuilt)
        if manifest is None or manifest.content != entry.content:
            continue
        check_manifest(manifest, layout)
        arrays = manifest.arrays()
        mended = [name for name in rebuilt if not _is_same(found.get(name), arrays[name])]
        for name in mended:
            require_lease(layout.folder, run_id)
            publish_array(layout.folder, layout.manifest_specs[name], arrays[name])
        return [layout.manifest_specs[name].path for name in mended]
    raise CorruptError(
        f"{layout.folder}: {', '.join(damaged) or 'arrays'} of the manifest cannot be rebuilt to "
        f"content {str(entry.content)[:12]} from the shards' files: more is damaged, or the "
        f"codec's error is lost{RESTORE}"
    )


def mend_image_digests(
    layout: StoreLayout, manifest: Manifest, image_folder: Path | None, run_id: str, *, accept: bool
) -> list[str]:
    """Digest the images again if ``people/image_sha256`` is damaged; return its path if it was.

    Args:
        image_folder: Needed only where the array is damaged.
        accept: Take the images of absent shards as they are; no receipt speaks of them.

    Raises:
        CorruptError: the images are not those that the shards were written from.
        ConfigError: there are no images.
        ImageError: an image cannot be read.
    """
    spec = layout.specs[f"people/{IMAGE_SHA256}"]
    image_index = read_array(layout.folder, layout.specs["people/image_index"])
    try:
        wrong = _shards_of_other_images(
            layout, manifest, read_array(layout.folder, spec), image_index
        )
    except StoreError:
        pass
    else:
        if not wrong:
            return []
    if image_folder is None:
        raise ConfigError(
            f"{layout.folder}: {spec.path} is damaged and must be digested again from the images, "
            "but they are not where they were; name their folder with --images"
        )
    names = unpack_names(read_array(layout.folder, layout.specs["people/image_name"]))
    digests = np.zeros(spec.shape, np.uint8)
    for image in np.unique(image_index).tolist():
        digest = sha256_file(resolve_image(image_folder, names[image]))
        digests[image] = np.frombuffer(bytes.fromhex(digest), np.uint8)
    wrong = _shards_of_other_images(layout, manifest, digests, image_index)
    for other, known in _other_teachers(layout):
        wrong += _shards_of_other_images(other, known, digests, image_index)
    if wrong or not (accept or manifest.is_present.all()):
        why = (
            f"those in {image_folder} are not the ones that shard {wrong[0]} was written from"
            if wrong
            else "no shard was written of some; take those as they are with --accept-mended-images"
        )
        raise CorruptError(
            f"{layout.folder}: {spec.path} is damaged and must be digested again from the images, "
            f"but {why}; give the images as they were, or restore the file from a copy"
        )
    require_lease(layout.folder, run_id)
    publish_array(layout.folder, spec, digests)
    return [spec.path]


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
            is_unreadable = _status(layout, shard) == Status.IMAGE_UNREADABLE
            start = layout.dimensions.shard_rows(shard).start
            rows.append(start + np.flatnonzero(is_unreadable.any(axis=1)))
    return np.concatenate(rows)


def reopen_store(
    layout: StoreLayout, entry: TeacherEntry, manifest: Manifest, shards: set[int], run_id: str
) -> TeacherEntry:
    """Make a complete store one that lacks some shards, which a writer then resumes.

    First the others' receipts are written, which a complete store does not look at, then the root
    says incomplete: a kill in between leaves it complete.

    Returns:
        What the root now says of the teacher.
    """
    folder = layout.folder
    require_lease(folder, run_id)
    folder.remove(*(layout.receipt_name(shard) for shard in shards))
    for shard in range(layout.dimensions.num_shards):
        receipt = manifest.receipt(shard)
        if receipt is not None and shard not in shards:
            folder.publish(layout.receipt_name(shard), receipt.to_json(entry.fingerprint))
    require_lease(folder, run_id)
    reopened = replace(entry, content=None)
    publish_root(folder, {**read_entries(folder), entry.teacher: reopened})
    return reopened


def _readable(layout: StoreLayout) -> dict[str, NDArray[Any]]:
    found = {}
    for name, spec in layout.manifest_specs.items():
        try:
            found[name] = read_array(layout.folder, spec)
        except StoreError:
            continue
    return found


def _rebuild(
    layout: StoreLayout, found: dict[str, NDArray[Any]], names: list[str]
) -> Manifest | None:
    """Return the manifest with some arrays derived anew; None if one cannot be."""
    derivations = _derivations(layout)
    if not set(layout.manifest_specs) - found.keys() <= set(names) <= derivations.keys():
        return None
    arrays = found | {name: derivations[name]() for name in names}
    return Manifest(np.ones(layout.dimensions.num_shards, np.bool_), **arrays)


def _derivations(layout: StoreLayout) -> dict[str, Callable[[], NDArray[Any]]]:
    """Return how the arrays of a manifest follow from what it speaks of, by name."""
    shards = range(layout.dimensions.num_shards)
    files = [list(layout.shard_files(shard).values()) for shard in shards]
    folder = layout.folder

    def digest(name: str) -> NDArray[np.uint8]:
        try:
            return np.frombuffer(bytes.fromhex(folder.sha256(name)), np.uint8)
        except FileNotFoundError:
            raise CorruptError(f"{name} is missing, and so is its sha256{RESTORE}") from None

    def images() -> NDArray[np.uint8]:
        digests = read_array(folder, layout.specs[f"people/{IMAGE_SHA256}"])
        index = read_array(folder, layout.specs["people/image_index"])
        found = (digest_of_images(digests, index[_rows(layout, shard)]) for shard in shards)
        return np.stack([np.frombuffer(bytes.fromhex(each), np.uint8) for each in found])

    def counts() -> NDArray[np.int64]:
        status = (_status(layout, shard).ravel() for shard in shards)
        return np.stack([np.bincount(each, minlength=len(Status)) for each in status])

    return {
        "rows": lambda: np.array(
            [(rows.start, rows.stop) for rows in map(layout.dimensions.shard_rows, shards)]
        ),
        "lengths": lambda: np.array([[folder.size(n) or 0 for n in names] for names in files]),
        "sha256": lambda: np.stack([np.stack([digest(n) for n in names]) for names in files]),
        "status_counts": counts,
        "images_sha256": images,
    }


def _shards_of_other_images(
    layout: StoreLayout,
    manifest: Manifest,
    image_sha256: NDArray[np.uint8],
    image_index: NDArray[np.int64],
) -> list[int]:
    """Return the shards that were written from images of other digests."""
    return [
        shard
        for shard in np.flatnonzero(manifest.is_present).tolist()
        if digest_of_images(image_sha256, image_index[_rows(layout, shard)])
        != manifest.images_sha256[shard].tobytes().hex()
    ]


def _other_teachers(layout: StoreLayout) -> Iterator[tuple[StoreLayout, Manifest]]:
    """Yield the store's other teachers, each with its known shards."""
    for name, entry in read_entries(layout.folder).items():
        if name != layout.teacher:
            other = layout_of(layout.folder, name, entry.identity)
            yield other, read_known_shards(other, entry)[0]


def _status(layout: StoreLayout, shard: int) -> NDArray[np.uint8]:
    spec = layout.shard_specs["status"]
    return decode_plain_chunk(spec, shard, read_plain_chunk(layout.folder, spec, shard))


def _rows(layout: StoreLayout, shard: int) -> slice:
    rows = layout.dimensions.shard_rows(shard)
    return slice(rows.start, rows.stop)


def _is_same(found: NDArray[Any] | None, values: NDArray[Any]) -> bool:
    return found is not None and np.array_equal(found, values)
