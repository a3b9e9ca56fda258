"""Layout of one teacher's part of a store: every array, file and metadata document by name."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from store_schemas.array_spec import ArraySpec, group_metadata
from store_schemas.errors import SchemaError
from store_schemas.reading import StoreFiles
from store_schemas.stored_identity import StoreIdentity
from store_schemas.teacher_store import StoreDimensions, array_specs, teacher_attributes

IMAGE_SHA256 = "image_sha256"
"""The one array of ``people`` that is no part of the identity."""


@dataclass(frozen=True)
class TeacherLayout:
    """Where everything of one teacher lies, people and views included, and how it is stored.

    Raises:
        SchemaError: the identity implies arrays that are out of bounds.
    """

    folder: StoreFiles
    teacher: str
    identity: StoreIdentity

    def __post_init__(self) -> None:
        for section, known in (("people", self.identity.people), ("views", self.identity.views)):
            paths = {spec.path for spec in self.plan_specs(f"{section}/")}
            names = {path.removeprefix(f"{section}/") for path in paths} - {IMAGE_SHA256}
            if known.arrays.keys() != names:
                raise SchemaError(
                    f"identity.{section}: 'arrays' must name {', '.join(sorted(names))}, got "
                    f"{', '.join(sorted(known.arrays)) or 'none'}"
                )

    @property
    def dimensions(self) -> StoreDimensions:
        return self.identity.dimensions

    @cached_property
    def specs(self) -> dict[str, ArraySpec]:
        """Every array by its path below the root."""
        return array_specs(self.dimensions, self.teacher)

    @property
    def teacher_path(self) -> str:
        """Path of the teacher's group."""
        return f"teachers/{self.teacher}"

    @cached_property
    def shard_specs(self) -> dict[str, ArraySpec]:
        """The teacher's arrays by name, one file per shard each, in the order of publishing."""
        return self._specs_below(f"{self.teacher_path}/")

    @cached_property
    def manifest_specs(self) -> dict[str, ArraySpec]:
        """The arrays of the manifest by name."""
        return self._specs_below(f"{self.teacher_path}/manifest/")

    def plan_specs(self, section: str = "") -> list[ArraySpec]:
        """Return the arrays of people and views, or of one of these sections."""
        found = [s for s in self.specs.values() if not s.path.startswith("teachers/")]
        return [spec for spec in found if spec.path.startswith(section)]

    def group_documents(self) -> dict[str, dict[str, Any]]:
        """Return the ``zarr.json`` of every group but the root and the manifest, by path."""
        people, views = self.identity.people, self.identity.views
        return {
            "people": group_metadata(
                {"skeleton": people.skeleton.to_json(), "category_id": people.category_id}
            ),
            "views": group_metadata(
                {
                    "recipe": views.recipe,
                    "seed": views.seed,
                    "input_size_hw": list(views.input_size_hw),
                }
            ),
            "teachers": group_metadata(),
            self.teacher_path: group_metadata(teacher_attributes()),
        }

    def shard_documents(self) -> dict[str, dict[str, Any]]:
        """Return the ``zarr.json`` of the teacher's arrays, by path."""
        return {spec.path: spec.metadata() for spec in self.shard_specs.values()}

    def documents(self, *, is_complete: bool) -> dict[str, dict[str, Any]]:
        """Return the ``zarr.json`` of every group and array but the root, by path.

        is_complete: whether the manifest's are among them.
        """
        documents = self.group_documents()
        specs = self.plan_specs()
        if is_complete:
            documents[f"{self.teacher_path}/manifest"] = group_metadata()
            specs += self.manifest_specs.values()
        return documents | {s.path: s.metadata() for s in specs} | self.shard_documents()

    def shard_files(self, shard: int) -> dict[str, str]:
        """Return the names of a shard's files by array."""
        return {name: s.chunk_name(shard) for name, s in self.shard_specs.items()}

    def receipt_name(self, shard: int) -> str:
        """Return the name of a shard's receipt."""
        return f"{self.teacher_path}/manifest/{shard:06d}.json"

    def _specs_below(self, prefix: str) -> dict[str, ArraySpec]:
        named = {path.removeprefix(prefix): spec for path, spec in self.specs.items()}
        return {name: spec for name, spec in named.items() if "/" not in name}
