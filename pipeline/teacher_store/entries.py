"""What the root metadata says of a teacher: made here, compared here, read by ``opening``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.teacher_store.plan import PLANNED_SECTIONS
from store_schemas.array_spec import group_metadata
from store_schemas.identity import as_json, canonical_json, compare_identity, fingerprint, flatten
from store_schemas.metadata import parse_json
from store_schemas.teacher_store import SCHEMA


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

    def to_json(self) -> dict[str, Any]:
        """Return the teacher's part of the root's attributes."""
        return {
            "identity": self.identity,
            "fingerprint": self.fingerprint,
            "execution_recipe": self.execution_recipe,
            "provenance": self.provenance,
            "complete": self.content is not None,
            "content": self.content,
        }


def root_document(entries: dict[str, TeacherEntry]) -> dict[str, Any]:
    """Return the root's ``zarr.json`` of a store with these teachers."""
    teachers = {name: entry.to_json() for name, entry in entries.items()}
    return group_metadata({"schema": SCHEMA, "teachers": teachers})


def new_entry(
    teacher: str,
    identity: Mapping[str, Any],
    recipe: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> TeacherEntry:
    """Return the entry of a store that is not complete yet, or raise SchemaError."""
    whole = as_json(identity)
    entry = TeacherEntry(
        teacher=teacher,
        identity=whole,
        fingerprint=fingerprint(whole),
        execution_recipe=as_json(recipe),
        provenance=as_json(provenance),
        content=None,
    )
    # refuse now, not when a day's work is read back, what is too large or too deep
    parse_json(canonical_json(root_document({teacher: entry})), "zarr.json")
    return entry


def compare_given(whole: Mapping[str, Any], given: Mapping[str, Any], way_out: str) -> None:
    """Compare an identity with a caller's, who need not repeat what the store adds itself."""
    ours = {name: value for name, value in whole.items() if name not in PLANNED_SECTIONS}
    theirs = {name: value for name, value in given.items() if name not in PLANNED_SECTIONS}
    compare_identity(ours, theirs, way_out=way_out)
    repeated = {name: value for name, value in given.items() if name in PLANNED_SECTIONS}
    compare_identity(whole, repeated, fields=flatten(as_json(repeated)), way_out=way_out)
