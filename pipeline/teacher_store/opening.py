"""Open what a plan wrote, trusting nothing: metadata in bounds, arrays whole, identity intact.

Writer (to resume) and reader open a store through here. No zarr object is made: the metadata must
be the very one that schema and identity imply, so plain reads at computed offsets are enough.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.storage.folder import StoreFolder
from pipeline.teacher_store.entries import TeacherEntry, root_document
from pipeline.teacher_store.layout import StoreLayout
from pipeline.teacher_store.plan import IMAGE_SHA256, ViewPlan, check_mirrored, people_of
from store_schemas.array_spec import ArraySpec
from store_schemas.chunks import RESTORE, decode_plain_chunk, plain_chunk_bytes
from store_schemas.errors import CorruptError, IncompleteError, SchemaError
from store_schemas.identity import array_sha256, canonical_json, compare_identity, fingerprint
from store_schemas.metadata import MAX_METADATA_BYTES, check_metadata, parse_json, take_object
from store_schemas.stored_identity import group_documents
from store_schemas.teacher_store import ENTRY_FIELDS, SCHEMA, SHARED_SECTIONS, check_teacher_name

MAX_TEACHERS = 64


def read_entries(folder: StoreFolder) -> dict[str, TeacherEntry]:
    """Return what the root metadata says of every teacher, by name.

    Raises:
        IncompleteError: there is no store, or its plan was not finished.
        SchemaError: another schema, or metadata that this program never writes.
        CorruptError: an identity is not the one its fingerprint was taken of.
    """
    try:
        document = read_document(folder, "zarr.json")
    except FileNotFoundError:
        raise IncompleteError(
            f"{folder} must hold a teacher store, but has no zarr.json: either nothing was written "
            f"there or its plan was not finished; run cache-teacher without --resume"
        ) from None
    attributes = take_object(document, "attributes", "zarr.json")
    schema = attributes.get("schema")
    if schema != SCHEMA:
        raise SchemaError(
            f"{folder} must have schema {SCHEMA!r}, got {schema!r}; read it with the version of "
            f"distil that wrote it, or write it again"
        )
    teachers = take_object(attributes, "teachers", "zarr.json")
    if not 0 < len(teachers) <= MAX_TEACHERS:
        raise SchemaError(f"{folder} must hold 1 to {MAX_TEACHERS} teachers, got {len(teachers)}")
    entries = {
        check_teacher_name(name): _entry(name, take_object(teachers, name, "zarr.json: teachers"))
        for name in teachers
    }
    check_metadata(document, root_document(entries), "zarr.json")
    for entry in entries.values():
        if fingerprint(entry.identity) != entry.fingerprint:
            raise CorruptError(f"{folder}: the identity was altered after its fingerprint{RESTORE}")
    _require_shared(entries)
    return entries


def _require_shared(entries: dict[str, TeacherEntry]) -> None:
    """Refuse teachers of one store that saw other people or views."""
    (first, identity), *others = ((name, entry.identity) for name, entry in entries.items())
    for name, other in others:
        for section in SHARED_SECTIONS:
            compare_identity(
                {section: identity.get(section)},
                {section: other.get(section)},
                way_out=f"the teachers {first} and {name} of a store share it: restore the root's "
                "zarr.json from a copy",
            )


def read_entry(folder: StoreFolder, teacher: str | None) -> TeacherEntry:
    """Return what the root metadata says of a teacher; None takes the only one.

    Raises:
        SchemaError: no such teacher; and all that ``read_entries`` raises.
    """
    entries = read_entries(folder)
    name = next(iter(entries)) if teacher is None and len(entries) == 1 else teacher
    if name is None or name not in entries:
        raise SchemaError(
            f"{folder} holds the teachers {', '.join(sorted(entries))}; name one of them with "
            f"--teacher-name, got {teacher!r}"
        )
    return entries[name]


def _entry(name: str, found: dict[str, Any]) -> TeacherEntry:
    where = f"zarr.json: teachers.{name}"
    if set(found) != set(ENTRY_FIELDS):
        raise SchemaError(f"{where} must have {', '.join(ENTRY_FIELDS)}, got {sorted(found)}")
    content, digest = found["content"], found["fingerprint"]
    if not _is_digest(digest) or not (content is None or _is_digest(content)):
        raise SchemaError(f"{where}: fingerprint and content must be sha256 digests")
    if found["complete"] is not (content is not None):
        raise SchemaError(f"{where}: 'complete' must be true exactly with a content")
    return TeacherEntry(
        teacher=name,
        identity=take_object(found, "identity", where),
        fingerprint=digest,
        execution_recipe=take_object(found, "execution_recipe", where),
        provenance=take_object(found, "provenance", where),
        content=content,
    )


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


@dataclass(frozen=True)
class StoredPlan:
    """People and views as the plan wrote them."""

    people: People
    image_sha256: NDArray[np.uint8]  # (M, 32)
    views: ViewPlan


def read_plan(
    layout: StoreLayout, identity: dict[str, Any], *, checks_documents: bool = True
) -> StoredPlan:
    """Return people and views, each array compared with the identity's sha256 of it.

    Args:
        checks_documents: Compare the metadata of everything planned too, not of these arrays alone.

    Raises:
        IdentityError: an array was altered; names the field.
        SchemaError: metadata or arrays contradict schema or identity.
        CorruptError: bytes are missing, torn or altered.
    """
    people, image_sha256 = read_people_of_plan(layout, identity, checks_documents=checks_documents)
    arrays = _read_section(layout, identity, "views")
    views = ViewPlan(
        image_to_crop=arrays["image_to_crop"],
        is_mirrored=arrays["is_mirrored"],
        input_size_hw=tuple(identity["views"]["input_size_hw"]),
        seed=identity["views"]["seed"],
        recipe=take_object(identity["views"], "recipe", "identity.views"),
    )
    check_mirrored(views.image_to_crop, views.is_mirrored)
    return StoredPlan(people, image_sha256, views)


def read_people_of_plan(
    layout: StoreLayout, identity: dict[str, Any], *, checks_documents: bool = True
) -> tuple[People, NDArray[np.uint8]]:
    """Return people and image digests (M, 32), and check the metadata of everything planned.

    Raises:
        As ``read_plan``.
    """
    if checks_documents:
        for path, document in group_documents(identity, layout.teacher).items():
            check_document(layout.folder, path, document)
        for spec in layout.shard_specs.values():
            check_document(layout.folder, spec.path, spec.metadata())
    arrays = _read_section(layout, identity, "people")
    return people_of(identity, arrays), arrays[IMAGE_SHA256]


def _read_section(
    layout: StoreLayout, identity: dict[str, Any], section: str
) -> dict[str, NDArray[Any]]:
    specs = [s for s in layout.plan_specs() if s.path.startswith(f"{section}/")]
    arrays = {spec.path: read_array(layout.folder, spec) for spec in specs}
    digests = {path: array_sha256(values) for path, values in arrays.items()}
    check_digests(identity, digests, section)
    return {path.removeprefix(f"{section}/"): values for path, values in arrays.items()}


def check_digests(identity: dict[str, Any], digests: dict[str, str], section: str) -> None:
    """Compare the sha256 of a section's arrays, by their path, with the identity's.

    Raises:
        IdentityError: an array was altered; names the field.
    """
    found = {path.removeprefix(f"{section}/"): digest for path, digest in digests.items()}
    found.pop(IMAGE_SHA256, None)
    compare_identity(
        {section: {"arrays": identity[section].get("arrays")}},
        {section: {"arrays": found}},
        way_out="the array was altered after the store was written: restore it from a copy",
    )


def read_document(folder: StoreFolder, path: str) -> dict[str, Any]:
    """Return a ``zarr.json``, parsed in bounds, or raise FileNotFoundError or SchemaError."""
    return parse_json(folder.read(path, MAX_METADATA_BYTES), path)


def check_document(folder: StoreFolder, path: str, expected: dict[str, Any]) -> None:
    """Compare a node's ``zarr.json`` with the expected one.

    Raises:
        CorruptError: it is missing.
        SchemaError: it differs; names the field.
    """
    name = f"{path}/zarr.json"
    try:
        data = folder.read(name, MAX_METADATA_BYTES)
    except FileNotFoundError:
        raise CorruptError(f"{name} is missing{RESTORE}") from None
    if data != canonical_json(expected):  # as it was written, there is nothing to compare
        check_metadata(parse_json(data, name), expected, name)


def read_array(folder: StoreFolder, spec: ArraySpec) -> NDArray[Any]:
    """Return a whole array that is not sharded, in the machine's byte order, read-only.

    Raises:
        CorruptError: a chunk is missing, torn or altered.
        SchemaError: its metadata is not the spec's.
    """
    chunks = read_chunks(folder, spec)
    if spec.num_chunks == 1:
        whole = next(chunks).astype(np.dtype(spec.dtype), copy=False)
    else:
        _require_sizes(folder, spec)  # before as much is reserved as metadata say
        whole = np.empty(spec.shape, np.dtype(spec.dtype))
        for chunk, rows in enumerate(chunks):
            start = spec.chunk_rows(chunk).start
            whole[start : start + len(rows)] = rows
    whole.flags.writeable = False
    return whole


def _require_sizes(folder: StoreFolder, spec: ArraySpec) -> None:
    for name in map(spec.chunk_name, range(spec.num_chunks)):
        size, expected = folder.size(name), plain_chunk_bytes(spec)
        if size is None:
            raise CorruptError(f"{name} is missing, or no regular file{RESTORE}")
        if size != expected:
            raise CorruptError(f"{name} must have {expected} bytes, got {size}{RESTORE}")


def read_chunks(folder: StoreFolder, spec: ArraySpec) -> Iterator[NDArray[Any]]:
    """Yield the rows of each chunk of an array that is not sharded: little-endian, read-only.

    Raises:
        CorruptError: a chunk is missing, torn or altered.
        SchemaError: its metadata is not the spec's.
    """
    check_document(folder, spec.path, spec.metadata())
    for chunk in range(spec.num_chunks):
        rows = decode_plain_chunk(spec, chunk, read_plain_chunk(folder, spec, chunk))
        if spec.dtype == "bool" and rows.size and rows.view(np.uint8).max() > 1:
            raise CorruptError(f"{spec.path} must hold bytes 0 and 1{RESTORE}")
        yield rows


def read_plain_chunk(folder: StoreFolder, spec: ArraySpec, chunk: int) -> bytes:
    """Return the file of one chunk of an array that is not sharded, or raise CorruptError."""
    name = spec.chunk_name(chunk)
    try:
        return folder.read(name, plain_chunk_bytes(spec))
    except FileNotFoundError:
        raise CorruptError(f"{name} is missing{RESTORE}") from None
