"""Root metadata of a store: an entry for each teacher, with its identity and its completion."""

from dataclasses import dataclass
from typing import Any, Self

from store_schemas.chunks import RESTORE
from store_schemas.errors import CorruptError, IncompleteError, SchemaError
from store_schemas.layout import StoreFiles
from store_schemas.metadata import (
    MAX_METADATA_BYTES,
    check_metadata,
    compare_identity,
    parse_json,
    take_digest,
    take_object,
)
from store_schemas.stored_identity import StoreIdentity
from store_schemas.teacher_store import SCHEMA, check_teacher_name, group_metadata

MAX_TEACHERS = 64
ENTRY_FIELDS = (
    "identity",
    "fingerprint",
    "execution_recipe",
    "provenance",
    "complete",
    "content",
)
"""Fields of each teacher's entry in the root's attributes."""


@dataclass(frozen=True)
class TeacherEntry:
    """The root's entry of one teacher."""

    teacher: str
    identity: StoreIdentity
    execution_recipe: dict[str, Any]
    provenance: dict[str, Any]
    content_sha256: str | None
    """sha256 of the manifest; None while the store is incomplete."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the identity."""
        return self.identity.fingerprint

    @property
    def is_complete(self) -> bool:
        return self.content_sha256 is not None

    def to_json(self) -> dict[str, Any]:
        """Return the teacher's part of the root's attributes."""
        return {
            "identity": self.identity.to_json(),
            "fingerprint": self.fingerprint,
            "execution_recipe": self.execution_recipe,
            "provenance": self.provenance,
            "complete": self.is_complete,
            "content": self.content_sha256,
        }

    @classmethod
    def from_json(cls, teacher: str, found: dict[str, Any]) -> Self:
        """Parse a teacher's part of the root's attributes.

        Raises:
            SchemaError: a field is missing, unknown or out of bounds.
            CorruptError: the identity is not the one its fingerprint was taken of.
        """
        where = f"zarr.json: teachers.{teacher}"
        if set(found) != set(ENTRY_FIELDS):
            raise SchemaError(f"{where} must have {', '.join(ENTRY_FIELDS)}, got {sorted(found)}")
        content = None if found["content"] is None else take_digest(found, "content", where)
        if found["complete"] is not (content is not None):
            raise SchemaError(f"{where}: 'complete' must be true exactly with a content")
        identity = StoreIdentity.from_json(take_object(found, "identity", where))
        if identity.fingerprint != take_digest(found, "fingerprint", where):
            raise CorruptError(f"{where}: the identity was altered after its fingerprint{RESTORE}")
        return cls(
            teacher=teacher,
            identity=identity,
            execution_recipe=take_object(found, "execution_recipe", where),
            provenance=take_object(found, "provenance", where),
            content_sha256=content,
        )


def root_document(entries: dict[str, TeacherEntry]) -> dict[str, Any]:
    """Return the root's ``zarr.json`` of a store with these teachers."""
    teachers = {name: entry.to_json() for name, entry in entries.items()}
    return group_metadata({"schema": SCHEMA, "teachers": teachers})


def read_entries(files: StoreFiles) -> dict[str, TeacherEntry]:
    """Return the root's entry of every teacher, by name.

    Raises:
        IncompleteError: there is no store, or its plan was not finished.
        SchemaError: another schema, or metadata that this program never writes.
        CorruptError: an identity is not the one its fingerprint was taken of.
        IdentityError: the teachers do not share people and views.
    """
    try:
        document = parse_json(files.read("zarr.json", MAX_METADATA_BYTES), "zarr.json")
    except FileNotFoundError:
        raise IncompleteError(
            f"{files} must hold a teacher store, but has no zarr.json: either nothing was written "
            f"there or its plan was not finished; run cache-teacher without --resume"
        ) from None
    attributes = take_object(document, "attributes", "zarr.json")
    schema = attributes.get("schema")
    if schema != SCHEMA:
        raise SchemaError(
            f"{files} must have schema {SCHEMA!r}, got {schema!r}; read it with the version of "
            f"distil that wrote it, or write it again"
        )
    teachers = take_object(attributes, "teachers", "zarr.json")
    rest = {**document, "attributes": {**attributes, "teachers": {}}}
    check_metadata(rest, group_metadata({"schema": SCHEMA, "teachers": {}}), "zarr.json")
    if not 0 < len(teachers) <= MAX_TEACHERS:
        raise SchemaError(f"{files} must hold 1 to {MAX_TEACHERS} teachers, got {len(teachers)}")
    entries = {
        check_teacher_name(name): TeacherEntry.from_json(
            name, take_object(teachers, name, "zarr.json: teachers")
        )
        for name in teachers
    }
    first, *others = entries.values()
    for other in others:
        compare_identity(
            first.identity.shared_json(),
            other.identity.shared_json(),
            way_out=f"the teachers {first.teacher} and {other.teacher} of a store share it: "
            "restore the root's zarr.json from a copy",
        )
    return entries


def read_entry(files: StoreFiles, teacher: str | None) -> TeacherEntry:
    """Return the root's entry of a teacher; None takes the only one.

    Raises:
        SchemaError: no such teacher; and all that ``read_entries`` raises.
    """
    entries = read_entries(files)
    name = next(iter(entries)) if teacher is None and len(entries) == 1 else teacher
    if name is None or name not in entries:
        got = "" if teacher is None else f", got {teacher!r}"
        raise SchemaError(
            f"{files} holds the teachers {', '.join(sorted(entries))}; name one of them with "
            f"--teacher-name{got}"
        )
    return entries[name]
