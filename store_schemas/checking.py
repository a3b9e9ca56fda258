"""Open a store and look at every byte of it, with this package alone.

For whoever receives a store and has no pipeline: metadata against schema and identity, arrays
against their digests, every chunk decoded. What a program that *uses* a store needs stays in
``pipeline/teacher_store``: typed people and views, random access, object stores, incomplete stores,
the list of all that is wrong, repair. Here the first fault ends the check, and a shard is read
whole. The parts are the ones that the pipeline reads with: specs, chunks, identity.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store_schemas.array_spec import ArraySpec, group_metadata
from store_schemas.chunks import (
    ABSENT,
    decode_plain_chunk,
    decode_view,
    parse_shard_index,
    plain_chunk_bytes,
    shard_index_bytes,
)
from store_schemas.errors import CorruptError, IdentityError, IncompleteError, SchemaError
from store_schemas.identity import array_sha256, compare_identity, content_sha256, fingerprint
from store_schemas.metadata import MAX_METADATA_BYTES, check_metadata, parse_json, take_object
from store_schemas.optional_arrays import CHECKSUMS
from store_schemas.stored_identity import dimensions_of, group_documents
from store_schemas.teacher_store import (
    ENTRY_FIELDS,
    SCHEMA,
    SHARED_SECTIONS,
    Status,
    StoreDimensions,
    array_specs,
    check_teacher_name,
)

_IMAGE_SHA256 = "people/image_sha256"
_CHECKSUMS = {"heatmaps": "heatmap_crc32c", **CHECKSUMS}
_ALTERED = "the array was altered after the store was written: restore it from a copy"


@dataclass(frozen=True)
class CheckedTeacher:
    """What was found of one teacher of a store."""

    name: str
    fingerprint: str
    content: str | None
    """sha256 of the manifest; None: incomplete, and its shards were not looked at."""
    num_people: int
    num_views: int
    """V, view 0 included."""
    status_counts: dict[str, int]
    """Views of the decoded shards by status."""


def check_store(path: Path | str) -> tuple[CheckedTeacher, ...]:
    """Compare every file of a store of this machine with what it promises; decode every chunk.

    Raises:
        IncompleteError: there is no store.
        SchemaError: metadata are not what schema and identity imply.
        IdentityError: an array of people or views was altered.
        CorruptError: bytes are missing, torn or altered; names the file.
    """
    root = Path(path)
    try:
        document = _read_json(root, "zarr.json")
    except CorruptError:
        raise IncompleteError(f"{root} must hold a teacher store, but has no zarr.json") from None
    attributes = take_object(document, "attributes", "zarr.json")
    if attributes.get("schema") != SCHEMA:
        raise SchemaError(f"{root} must have schema {SCHEMA!r}, got {attributes.get('schema')!r}")
    check_metadata(document, group_metadata(attributes), "zarr.json")
    teachers = take_object(attributes, "teachers", "zarr.json")
    first: dict[str, Any] = {}
    found = []
    for name in teachers:
        entry = take_object(teachers, check_teacher_name(name), "zarr.json: teachers")
        identity = _identity_of(name, entry)
        first = first or identity
        ours, theirs = ({s: each.get(s) for s in SHARED_SECTIONS} for each in (first, identity))
        compare_identity(ours, theirs, way_out=f"the teachers of {root} must share it")
        found.append(_TeacherCheck(root, name, entry, identity).run())
    return tuple(found)


def _identity_of(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    where = f"zarr.json: teachers.{name}"
    if set(entry) != set(ENTRY_FIELDS):
        raise SchemaError(f"{where} must have {', '.join(ENTRY_FIELDS)}, got {sorted(entry)}")
    if entry["complete"] is not (entry["content"] is not None):
        raise SchemaError(f"{where}: 'complete' must be true exactly with a content")
    identity = take_object(entry, "identity", where)
    if fingerprint(identity) != entry["fingerprint"]:
        raise IdentityError(f"{where}: the identity was altered after its fingerprint")
    return identity


class _TeacherCheck:
    """One teacher of a store, and the people and views that it shares."""

    def __init__(
        self, root: Path, name: str, entry: dict[str, Any], identity: dict[str, Any]
    ) -> None:
        self._root, self._name, self._entry, self._identity = root, name, entry, identity
        self._dimensions: StoreDimensions = dimensions_of(identity)
        below = f"teachers/{name}/"
        specs = array_specs(self._dimensions, name).values()
        self._plan = [spec for spec in specs if not spec.path.startswith("teachers/")]
        own = {s.path.removeprefix(below): s for s in specs if s.path.startswith(below)}
        self._shards = {n: s for n, s in own.items() if "/" not in n}
        self._manifest = {n.removeprefix("manifest/"): s for n, s in own.items() if "/" in n}

    def run(self) -> CheckedTeacher:
        documents = group_documents(self._identity, self._name)
        specs = [*self._plan, *self._shards.values()]
        if self._entry["complete"]:
            documents[f"teachers/{self._name}/manifest"] = group_metadata()
            specs += self._manifest.values()
        documents |= {spec.path: spec.metadata() for spec in specs}
        for path, document in documents.items():
            name = f"{path}/zarr.json"
            check_metadata(_read_json(self._root, name), document, name)
        plan = {spec.path: self._read_array(spec) for spec in self._plan}
        self._check_plan(plan)
        counts = np.zeros(len(Status), np.int64)
        if self._entry["complete"]:
            counts = self._check_shards(plan)
        return CheckedTeacher(
            name=self._name,
            fingerprint=self._entry["fingerprint"],
            content=self._entry["content"],
            num_people=self._dimensions.num_instances,
            num_views=self._dimensions.num_views,
            status_counts={status.words: int(counts[status]) for status in Status},
        )

    def _check_plan(self, arrays: dict[str, NDArray[Any]]) -> None:
        for section in ("people", "views"):
            digests = {
                path.removeprefix(f"{section}/"): array_sha256(values)
                for path, values in arrays.items()
                if path.startswith(f"{section}/") and path != _IMAGE_SHA256
            }
            stored = {section: {"arrays": self._identity[section].get("arrays")}}
            compare_identity(stored, {section: {"arrays": digests}}, way_out=_ALTERED)

    def _check_shards(self, plan: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Return how many views have each status."""
        manifest = {name: self._read_array(spec) for name, spec in self._manifest.items()}
        content = content_sha256(manifest)
        if content != self._entry["content"]:
            raise CorruptError(
                f"{self._root}: content of {self._name} must be {self._entry['content']}, the "
                f"manifest's sha256 is {content}"
            )
        for shard in range(self._dimensions.num_shards):
            rows = self._dimensions.shard_rows(shard)
            said = {name: values[shard] for name, values in manifest.items()}
            _require(said["rows"].tolist() == [rows.start, rows.stop], shard, "rows")
            images = plan[_IMAGE_SHA256][plan["people/image_index"][rows.start : rows.stop]]
            digest = hashlib.sha256(images.tobytes()).digest()
            _require(digest == said["images_sha256"].tobytes(), shard, "images_sha256")
            status = self._check_shard(shard, said["lengths"], said["sha256"])
            counts = np.bincount(status.ravel(), minlength=len(Status)).tolist()
            _require(counts == said["status_counts"].tolist(), shard, "status_counts")
        return np.asarray(manifest["status_counts"].sum(axis=0))

    def _check_shard(
        self, shard: int, lengths: NDArray[Any], sha256: NDArray[Any]
    ) -> NDArray[np.uint8]:
        """Compare and decode a shard's files; return (n, V) uint8, its views' status."""
        files = {}
        for (name, spec), length, digest in zip(
            self._shards.items(), lengths.tolist(), sha256, strict=True
        ):
            where = spec.chunk_name(shard)
            files[name] = _read_bytes(self._root, where, length, exactly=True)
            if hashlib.sha256(files[name]).digest() != digest.tobytes():
                raise CorruptError(f"{where} must have the sha256 of the manifest")
        plain = {
            name: decode_plain_chunk(spec, shard, files[name])
            for name, spec in self._shards.items()
            if not spec.is_sharded
        }
        is_ok = plain["status"] == Status.OK
        outputs = plain["outputs"]
        _require(bool(np.isfinite(outputs[is_ok]).all()), shard, "status: outputs are not finite")
        _require(bool(np.isnan(outputs[~is_ok]).all()), shard, "status: a failed view has outputs")
        for name, spec in self._shards.items():
            if spec.is_sharded:
                _decode_shard(spec, shard, files[name], plain[_CHECKSUMS[name]])
        return np.asarray(plain["status"])

    def _read_array(self, spec: ArraySpec) -> NDArray[Any]:
        chunks = []
        for chunk in range(spec.num_chunks):
            name, length = spec.chunk_name(chunk), plain_chunk_bytes(spec)
            data = _read_bytes(self._root, name, length, exactly=True)
            chunks.append(decode_plain_chunk(spec, chunk, data))
        return np.concatenate(chunks) if chunks else np.zeros(spec.shape, spec.dtype)


def _decode_shard(spec: ArraySpec, shard: int, data: bytes, checksums: NDArray[Any]) -> None:
    """Decode every view of a shard, each compared with its row's crc32c (n, V)."""
    num_rows, num_views = checksums.shape
    where = spec.chunk_name(shard)
    length = shard_index_bytes(spec.rows_per_chunk * num_views)
    index = parse_shard_index(data[-length:], len(data), where)
    view = np.empty(spec.shape[2:], spec.numpy_dtype)
    for place, (offset, size) in enumerate(index.tolist()):
        row, column = divmod(place, num_views)
        if row >= num_rows:
            _require(offset == int(ABSENT), shard, "rows: there is a chunk behind the last row")
            continue
        try:
            decode_view(data[offset : offset + size], int(checksums[row, column]), view)
        except CorruptError as error:
            raise CorruptError(f"{where}, row {row} of it, view {column}: {error}") from error


def _require(is_so: bool, shard: int, what: str) -> None:
    if not is_so:
        raise CorruptError(f"shard {shard} contradicts the manifest or itself in {what}")


def _read_json(root: Path, name: str) -> dict[str, Any]:
    return parse_json(_read_bytes(root, name, MAX_METADATA_BYTES), name)


def _read_bytes(root: Path, name: str, length: int, *, exactly: bool = False) -> bytes:
    """Return a file of at most, or exactly, so many bytes; its size is asked for first."""
    path = root / name
    if not path.is_file():
        raise CorruptError(f"{name} is missing, or no file")
    size = path.stat().st_size
    if size > length or (exactly and size != length):
        raise CorruptError(
            f"{name} must have {'' if exactly else 'at most '}{length} bytes: {size}"
        )
    return path.read_bytes()
