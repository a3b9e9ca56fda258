"""Open what a plan wrote, trusting nothing: metadata in bounds, arrays whole, identity intact.

Writer (to resume) and reader open a store through here. No zarr object is made: the metadata must
be the very one that schema and identity imply, so plain reads at computed offsets are enough.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.file_layer import read_file
from pipeline.teacher_store.plan import (
    ViewPlan,
    check_mirrored,
    dimensions_of,
    group_documents,
    people_of,
)
from store_schemas.chunks import RESTORE, decode_plain_chunk, plain_chunk_bytes
from store_schemas.errors import CorruptError, IncompleteError, SchemaError
from store_schemas.identity import array_sha256, compare_identity, fingerprint
from store_schemas.metadata import MAX_METADATA_BYTES, check_metadata, parse_json, take_object
from store_schemas.teacher_store import (
    SCHEMA,
    ArraySpec,
    StoreDimensions,
    array_specs,
    check_teacher_name,
    group_metadata,
)

ROOT_FIELDS = (
    "identity",
    "fingerprint",
    "execution_recipe",
    "provenance",
    "complete",
    "content",
)


@dataclass(frozen=True)
class TeacherEntry:
    """What the root metadata says of one teacher."""

    teacher: str
    identity: dict[str, Any]
    fingerprint: str
    execution_recipe: dict[str, Any]
    provenance: dict[str, Any]
    content: str | None
    """sha256 of the manifest; None while the store is incomplete."""

    def root_document(self) -> dict[str, Any]:
        """Return the root's ``zarr.json``."""
        entry = {
            "identity": self.identity,
            "fingerprint": self.fingerprint,
            "execution_recipe": self.execution_recipe,
            "provenance": self.provenance,
            "complete": self.content is not None,
            "content": self.content,
        }
        return group_metadata({"schema": SCHEMA, "teachers": {self.teacher: entry}})


@dataclass(frozen=True)
class StoreLayout:
    """Where everything of one teacher lies, and how it is stored."""

    root: Path
    teacher: str
    dimensions: StoreDimensions
    specs: dict[str, ArraySpec]
    """Every array by its path below the root."""

    @property
    def folder(self) -> Path:
        """The teacher's folder."""
        return self.root / "teachers" / self.teacher

    @property
    def teacher_specs(self) -> dict[str, ArraySpec]:
        """The teacher's own arrays by name, without the manifest's."""
        return self._specs_below(f"teachers/{self.teacher}/")

    @property
    def manifest_specs(self) -> dict[str, ArraySpec]:
        return self._specs_below(f"teachers/{self.teacher}/manifest/")

    def plan_specs(self) -> list[ArraySpec]:
        """Return the arrays that the plan writes whole."""
        return [s for s in self.specs.values() if not s.path.startswith("teachers/")]

    def _specs_below(self, prefix: str) -> dict[str, ArraySpec]:
        named = {path.removeprefix(prefix): spec for path, spec in self.specs.items()}
        return {name: spec for name, spec in named.items() if "/" not in name}


def layout_of(root: Path, teacher: str, identity: dict[str, Any]) -> StoreLayout:
    """Return the layout that an identity implies, or raise SchemaError."""
    dimensions = dimensions_of(identity)
    return StoreLayout(root, teacher, dimensions, array_specs(dimensions, teacher))


def read_entry(root: Path, teacher: str | None) -> TeacherEntry:
    """Return what the root metadata says of a teacher; None takes the only one.

    Raises:
        IncompleteError: there is no store, or its plan was not finished.
        SchemaError: another schema, no such teacher, or metadata that this program never writes.
        CorruptError: the identity is not the one its fingerprint was taken of.
    """
    try:
        document = read_document(root, "zarr.json")
    except FileNotFoundError:
        raise IncompleteError(
            f"{root} must hold a teacher store, but has no zarr.json: either nothing was written "
            f"there or its plan was not finished; run cache-teacher without --resume"
        ) from None
    attributes = take_object(document, "attributes", "zarr.json")
    schema = attributes.get("schema")
    if schema != SCHEMA:
        raise SchemaError(
            f"{root} must have schema {SCHEMA!r}, got {schema!r}; read it with the version of "
            f"distil that wrote it, or write it again"
        )
    teachers = take_object(attributes, "teachers", "zarr.json")
    name = _choose(teachers, teacher, root)
    found = take_object(teachers, name, "zarr.json: teachers")
    entry = _entry(name, found)
    if len(teachers) == 1:
        check_metadata(document, entry.root_document(), "zarr.json")
    if fingerprint(entry.identity) != entry.fingerprint:
        raise CorruptError(f"{root}: the identity was altered after its fingerprint{RESTORE}")
    return entry


def _choose(teachers: dict[str, Any], teacher: str | None, root: Path) -> str:
    if teacher is None and len(teachers) == 1:
        return check_teacher_name(next(iter(teachers)))
    if teacher is None or teacher not in teachers:
        raise SchemaError(
            f"{root} holds the teachers {', '.join(sorted(teachers))}; name one of them, "
            f"got {teacher!r}"
        )
    return check_teacher_name(teacher)


def _entry(name: str, found: dict[str, Any]) -> TeacherEntry:
    where = f"zarr.json: teachers.{name}"
    if set(found) != set(ROOT_FIELDS):
        raise SchemaError(f"{where} must have {', '.join(ROOT_FIELDS)}, got {', '.join(found)}")
    content, digest = found["content"], found["fingerprint"]
    if not isinstance(digest, str) or not isinstance(content, str | None):
        raise SchemaError(f"{where}: fingerprint and content must be digests")
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


@dataclass(frozen=True)
class StoredPlan:
    """People and views as the plan wrote them."""

    people: People
    image_sha256: NDArray[np.uint8]  # (M, 32)
    views: ViewPlan


def read_plan(layout: StoreLayout, identity: dict[str, Any]) -> StoredPlan:
    """Return people and views, each array compared with the identity's sha256 of it.

    Raises:
        IdentityError: an array was altered; names the field.
        SchemaError: metadata or arrays contradict schema or identity.
        CorruptError: bytes are missing, torn or altered.
    """
    for path, document in group_documents(identity, layout.teacher).items():
        check_document(layout.root, path, document)
    for spec in layout.teacher_specs.values():
        check_document(layout.root, spec.path, spec.metadata())
    arrays = {spec.path: read_array(layout.root, spec) for spec in layout.plan_specs()}
    for section in ("people", "views"):
        _check_digests(identity, arrays, section)
    people = {path.removeprefix("people/"): values for path, values in arrays.items()}
    views = ViewPlan(
        image_to_crop=arrays["views/image_to_crop"],
        is_mirrored=arrays["views/is_mirrored"],
        input_size_hw=tuple(identity["views"]["input_size_hw"]),
        seed=identity["views"]["seed"],
        recipe=take_object(identity["views"], "recipe", "identity.views"),
    )
    check_mirrored(views.image_to_crop, views.is_mirrored)
    return StoredPlan(people_of(identity, people), arrays["people/image_sha256"], views)


def _check_digests(identity: dict[str, Any], arrays: dict[str, NDArray[Any]], section: str) -> None:
    prefix = f"{section}/"
    found = {
        path.removeprefix(prefix): array_sha256(values)
        for path, values in arrays.items()
        if path.startswith(prefix)
    }
    compare_identity(
        {section: {"arrays": identity[section].get("arrays")}},
        {section: {"arrays": found}},
        way_out="the array was altered after the store was written: restore it from a copy",
    )


def read_document(root: Path, path: str) -> dict[str, Any]:
    """Return a ``zarr.json``, parsed in bounds, or raise FileNotFoundError or SchemaError."""
    return parse_json(read_file(root / path, MAX_METADATA_BYTES), path)


def check_document(root: Path, path: str, expected: dict[str, Any]) -> None:
    """Compare a node's ``zarr.json`` with the expected one.

    Raises:
        CorruptError: it is missing.
        SchemaError: it differs; names the field.
    """
    name = f"{path}/zarr.json"
    try:
        found = read_document(root, name)
    except FileNotFoundError:
        raise CorruptError(f"{name} is missing{RESTORE}") from None
    check_metadata(found, expected, name)


def read_array(root: Path, spec: ArraySpec) -> NDArray[Any]:
    """Return a whole array that is not sharded, in the machine's byte order, read-only.

    Raises:
        CorruptError: a chunk is missing, torn or altered.
        SchemaError: its metadata is not the spec's.
    """
    check_document(root, spec.path, spec.metadata())
    chunks = [
        decode_plain_chunk(spec, chunk, read_plain_chunk(root, spec, chunk))
        for chunk in range(spec.num_chunks)
    ]
    native = np.dtype(spec.dtype)
    whole = np.concatenate(chunks) if chunks else np.zeros(spec.shape, native)
    whole = whole.astype(native, copy=False)
    if spec.dtype == "bool" and whole.size and whole.view(np.uint8).max() > 1:
        raise CorruptError(f"{spec.path} must hold bytes 0 and 1{RESTORE}")
    whole.flags.writeable = False
    return whole


def read_plain_chunk(root: Path, spec: ArraySpec, chunk: int) -> bytes:
    """Return the file of one chunk of an array that is not sharded, or raise CorruptError."""
    name = f"{spec.path}/{spec.chunk_key(chunk)}"
    try:
        return read_file(root / name, plain_chunk_bytes(spec))
    except FileNotFoundError:
        raise CorruptError(f"{name} is missing{RESTORE}") from None
