"""Repair of metadata, manifest and image digests, each from other bytes of the store.

Groups and array metadata follow from the identity, the manifest's arrays from the shards' files,
the images' digests from the images. Nothing is guessed: a manifest is published only if it is
the one that the root's ``content`` was taken of, and digests only if every shard was written from
them. People, views and the codec's error cannot be computed from other bytes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import resolve_image, sha256_file
from pipeline.errors import ConfigError
from pipeline.storage.lease import require_lease
from pipeline.teacher_store.opening import StoreLayout, layout_of
from pipeline.teacher_store.publishing import publish_array, publish_document
from store_schemas.checking import document_faults
from store_schemas.chunks import RESTORE
from store_schemas.errors import CorruptError, StoreError
from store_schemas.layout import IMAGE_SHA256
from store_schemas.manifest import (
    Manifest,
    check_manifest,
    digest_bytes,
    digest_of_images,
    read_manifest,
    shards_of_other_images,
)
from store_schemas.names import unpack_names
from store_schemas.reading import read_array, read_chunk
from store_schemas.root_metadata import TeacherEntry, read_entries
from store_schemas.teacher_store import Status


def repair_documents(layout: StoreLayout, entry: TeacherEntry, run_id: str) -> list[str]:
    """Write every ``zarr.json`` that is not the one the identity implies; return their paths."""
    documents = layout.documents(is_complete=entry.is_complete)
    damaged = [path for path, _ in document_faults(layout, entry)]
    for path in damaged:
        require_lease(layout.folder, run_id)
        publish_document(layout.folder, path, documents[path])
    return damaged


def repair_manifest(layout: StoreLayout, entry: TeacherEntry, run_id: str) -> list[str]:
    """Rebuild the damaged arrays of a complete store's manifest; return their paths.

    Raises:
        CorruptError: the rebuilt manifest is not the one that the root's ``content`` was taken of.
    """
    try:
        read_manifest(layout, entry)
    except StoreError:
        found = _readable(layout)
    else:
        return []
    damaged = [name for name in layout.manifest_specs if name not in found]
    # First only the unreadable arrays; if that fails, one was altered together with its checksum.
    for rebuilt in (damaged, list(_derivations(layout))):
        manifest = _rebuild(layout, found, rebuilt)
        if manifest is None or manifest.content_sha256 != entry.content_sha256:
            continue
        check_manifest(manifest, layout)
        arrays = manifest.arrays()
        repaired = [name for name in rebuilt if not _is_same(found.get(name), arrays[name])]
        for name in repaired:
            require_lease(layout.folder, run_id)
            publish_array(layout.folder, layout.manifest_specs[name], arrays[name])
        return [layout.manifest_specs[name].path for name in repaired]
    raise CorruptError(
        f"{layout.folder}: {', '.join(damaged) or 'arrays'} of the manifest cannot be rebuilt to "
        f"content {str(entry.content_sha256)[:12]} from the shards' files: more is damaged, or the "
        f"codec's error is lost{RESTORE}"
    )


def repair_image_digests(
    layout: StoreLayout, manifest: Manifest, image_folder: Path | None, run_id: str, *, accept: bool
) -> list[str]:
    """Digest the images again if ``people/image_sha256`` is damaged; return its path if it was.

    Args:
        image_folder: Needed only where the array is damaged.
        accept: Accept the images of absent shards as they are; no receipt has their digest.

    Raises:
        CorruptError: the images are not those that the shards were written from.
        ConfigError: there are no images.
        ImageError: an image cannot be read.
    """
    spec = layout.specs[f"people/{IMAGE_SHA256}"]
    image_index = read_array(layout.folder, layout.specs["people/image_index"])
    try:
        stored = read_array(layout.folder, spec)
    except StoreError:
        pass
    else:
        if not any(shards_of_other_images(manifest, stored, image_index)):
            return []
    if image_folder is None:
        raise ConfigError(
            f"{layout.folder}: {spec.path} is damaged and must be digested again from the images, "
            "which are not where they were; name their folder with --images"
        )
    names = unpack_names(read_array(layout.folder, layout.specs["people/image_name"]))
    digests = np.zeros(spec.shape, np.uint8)
    for image in np.unique(image_index).tolist():
        digests[image] = digest_bytes(sha256_file(resolve_image(image_folder, names[image])))
    wrong = [
        shard
        for known in (manifest, *_other_manifests(layout))
        for shard, _, _ in shards_of_other_images(known, digests, image_index)
    ]
    if wrong or not (accept or manifest.is_present.all()):
        why = (
            f"those in {image_folder} are not the ones that shard {wrong[0]} was written from"
            if wrong
            else "no shard was written from some; accept those with --accept-mended-images"
        )
        raise CorruptError(
            f"{layout.folder}: {spec.path} is damaged and must be digested again from the images, "
            f"but {why}; give the images as they were, or restore the file from a copy"
        )
    require_lease(layout.folder, run_id)
    publish_array(layout.folder, spec, digests)
    return [spec.path]


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
    """Return the manifest with some arrays computed again; None if one cannot be."""
    derivations = _derivations(layout)
    if not set(layout.manifest_specs) - found.keys() <= set(names) <= derivations.keys():
        return None
    arrays = found | {name: derivations[name]() for name in names}
    return Manifest(np.ones(layout.dimensions.num_shards, np.bool_), **arrays)


def _derivations(layout: StoreLayout) -> dict[str, Callable[[], NDArray[Any]]]:
    """Return functions that compute the arrays of a manifest from the files, by name."""
    shards = range(layout.dimensions.num_shards)
    files = [list(layout.shard_files(shard).values()) for shard in shards]
    folder = layout.folder

    def digest(name: str) -> NDArray[np.uint8]:
        try:
            return digest_bytes(folder.sha256(name))
        except FileNotFoundError:
            raise CorruptError(f"{name} is missing, and so is its sha256{RESTORE}") from None

    def images() -> NDArray[np.uint8]:
        digests = read_array(folder, layout.specs[f"people/{IMAGE_SHA256}"])
        index = read_array(folder, layout.specs["people/image_index"])
        found = (digest_of_images(digests, index[_rows(layout, shard)]) for shard in shards)
        return np.stack([digest_bytes(each) for each in found])

    def counts() -> NDArray[np.int64]:
        status = (read_shard_status(layout, shard).ravel() for shard in shards)
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


def _other_manifests(layout: StoreLayout) -> Iterator[Manifest]:
    """Yield the manifest of each other teacher of the store, without its bad receipts."""
    for name, entry in read_entries(layout.folder).items():
        if name != layout.teacher:
            yield read_manifest(layout_of(layout.folder, entry), entry, bad_receipts={})


def read_shard_status(layout: StoreLayout, shard: int) -> NDArray[np.uint8]:
    """Return the status of a shard's views, (n, V) uint8, or raise CorruptError."""
    return read_chunk(layout.folder, layout.shard_specs["status"], shard)


def _rows(layout: StoreLayout, shard: int) -> slice:
    rows = layout.dimensions.shard_rows(shard)
    return slice(rows.start, rows.stop)


def _is_same(found: NDArray[Any] | None, values: NDArray[Any]) -> bool:
    return found is not None and np.array_equal(found, values)
