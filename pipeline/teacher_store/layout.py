"""Where everything of one teacher lies in a store, by name below its root."""

from dataclasses import dataclass
from typing import Any

from pipeline.storage.folder import StoreFolder
from pipeline.teacher_store.plan import dimensions_of
from store_schemas.array_spec import ArraySpec
from store_schemas.teacher_store import StoreDimensions, array_specs


@dataclass(frozen=True)
class StoreLayout:
    """Where everything of one teacher lies, and how it is stored."""

    folder: StoreFolder
    teacher: str
    dimensions: StoreDimensions
    specs: dict[str, ArraySpec]
    """Every array by its path below the root."""

    @property
    def teacher_path(self) -> str:
        """Path of the teacher's group."""
        return f"teachers/{self.teacher}"

    @property
    def shard_specs(self) -> dict[str, ArraySpec]:
        """The teacher's arrays by name, one file per shard each, in the order of publishing."""
        return self._specs_below(f"{self.teacher_path}/")

    @property
    def manifest_specs(self) -> dict[str, ArraySpec]:
        return self._specs_below(f"{self.teacher_path}/manifest/")

    def plan_specs(self) -> list[ArraySpec]:
        """Return the arrays that the plan writes whole."""
        return [s for s in self.specs.values() if not s.path.startswith("teachers/")]

    def shard_files(self, shard: int) -> dict[str, str]:
        """Return the names of a shard's files by array."""
        return {name: s.chunk_name(shard) for name, s in self.shard_specs.items()}

    def receipt_name(self, shard: int) -> str:
        """Return where a shard's receipt lies."""
        return f"{self.teacher_path}/manifest/{shard:06d}.json"

    def _specs_below(self, prefix: str) -> dict[str, ArraySpec]:
        named = {path.removeprefix(prefix): spec for path, spec in self.specs.items()}
        return {name: spec for name, spec in named.items() if "/" not in name}


def layout_of(folder: StoreFolder, teacher: str, identity: dict[str, Any]) -> StoreLayout:
    """Return the layout that an identity implies, or raise SchemaError."""
    dimensions = dimensions_of(identity)
    return StoreLayout(folder, teacher, dimensions, array_specs(dimensions, teacher))
