"""Layout of one teacher's part of a store: every array, file and metadata document by name.

Plain arrays are read without a zarr object: their metadata must be the very one that schema and
identity imply, so that plain reads at computed offsets are enough.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from store_schemas.array_table import array_specs
from store_schemas.chunks import RESTORE, decode_plain_chunk, plain_chunk_bytes
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.metadata import MAX_METADATA_BYTES, canonical_json, check_metadata, parse_json
from store_schemas.stored_identity import StoreIdentity
from store_schemas.teacher_store import (
    ArraySpec,
    StoreDimensions,
    group_metadata,
    teacher_attributes,
)


class StoreFiles(Protocol):
    """The files of a store, by their name below its root."""

    def __str__(self) -> str:
        """Return the location, for messages."""

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: there is none.
            CorruptError: it is longer than ``max_bytes``, or no plain file.
        """

    def size(self, name: str) -> int | None:
        """Return a file's length, None where there is none."""

    def sha256(self, name: str) -> str:
        """Return a file's sha256 in hexadecimal, or raise FileNotFoundError."""


def check_document(files: StoreFiles, path: str, expected: dict[str, Any]) -> None:
    """Compare a node's ``zarr.json`` with the expected one.

    Raises:
        CorruptError: it is missing.
        SchemaError: it differs; names the field.
    """
    name = f"{path}/zarr.json"
    try:
        data = files.read(name, MAX_METADATA_BYTES)
    except FileNotFoundError:
        raise CorruptError(f"{name} is missing{RESTORE}") from None
    if data != canonical_json(expected):  # equal bytes need no comparison by field
        check_metadata(parse_json(data, name), expected, name)


def read_array(files: StoreFiles, spec: ArraySpec) -> NDArray[Any]:
    """Return a whole array that is not sharded, in the machine's byte order, read-only.

    Raises:
        CorruptError: a chunk is missing, torn or altered.
        SchemaError: its metadata is not the spec's.
    """
    chunks = read_chunks(files, spec)
    if spec.num_chunks == 1:
        whole = next(chunks).astype(np.dtype(spec.dtype), copy=False)
    else:
        for name in map(spec.chunk_name, range(spec.num_chunks)):
            # before memory for the declared shape is reserved
            size, expected = files.size(name), plain_chunk_bytes(spec)
            if size is None:
                raise CorruptError(f"{name} is missing, or no regular file{RESTORE}")
            if size != expected:
                raise CorruptError(f"{name} must have {expected} bytes, got {size}{RESTORE}")
        whole = np.empty(spec.shape, np.dtype(spec.dtype))
        for chunk, rows in enumerate(chunks):
            start = spec.chunk_rows(chunk).start
            whole[start : start + len(rows)] = rows
    whole.flags.writeable = False
    return whole


def read_chunks(files: StoreFiles, spec: ArraySpec) -> Iterator[NDArray[Any]]:
    """Yield the rows of each chunk of an array that is not sharded: little-endian, read-only.

    Raises:
        CorruptError: a chunk is missing, torn or altered.
        SchemaError: its metadata is not the spec's.
    """
    check_document(files, spec.path, spec.metadata())
    for chunk in range(spec.num_chunks):
        rows = read_chunk(files, spec, chunk)
        if spec.dtype == "bool" and rows.size and rows.view(np.uint8).max() > 1:
            raise CorruptError(f"{spec.path} must hold bytes 0 and 1{RESTORE}")
        yield rows


def read_chunk(files: StoreFiles, spec: ArraySpec, chunk: int) -> NDArray[Any]:
    """Return the rows of one chunk of an array that is not sharded, or raise CorruptError."""
    name = spec.chunk_name(chunk)
    try:
        data = files.read(name, plain_chunk_bytes(spec))
    except FileNotFoundError:
        raise CorruptError(f"{name} is missing{RESTORE}") from None
    return decode_plain_chunk(spec, chunk, data)


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
