"""Opening trusts nothing: what schema and identity do not imply is refused, by its name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from pipeline.teacher_store.reader import TeacherStore
from store_schemas.chunks import encode_chunk
from store_schemas.errors import CorruptError, IdentityError, IncompleteError, SchemaError
from store_schemas.identity import canonical_json


def rewrite(store: Path, path: str, change: Callable[[NDArray[Any]], None]) -> None:
    """Alter an array as zarr would, with valid checksums."""
    spec = TeacherStore.open(store)._layout.specs[path]
    values = np.array(zarr.open_array(store / path, mode="r")[:])
    change(values)
    (store / path / spec.chunk_key(0)).write_bytes(encode_chunk(spec, 0, values))


def add_one(values: NDArray[Any]) -> None:
    values.flat[0] += 1


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("people/bbox_xywh", "people.arrays.bbox_xywh"),
        ("views/image_to_crop", "views.arrays.image_to_crop"),
    ],
)
def test_an_altered_array_of_the_plan_is_refused_by_its_field(
    copy: Path, path: str, field: str
) -> None:
    rewrite(copy, path, add_one)
    with pytest.raises(IdentityError, match=rf"'{field}' differs: .* restore it from a copy"):
        TeacherStore.open(copy)


def test_an_altered_manifest_is_refused(copy: Path) -> None:
    rewrite(copy, "teachers/hrnet/manifest/status_counts", add_one)
    with pytest.raises(CorruptError, match=r"content must be .*, the manifest's sha256 is"):
        TeacherStore.open(copy)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_array_of_the_plan_is_refused(factory: Any, copy: Path, damage: str) -> None:
    path = copy / "people/keypoints/c.0.0.0"
    data = path.read_bytes()
    path.unlink()
    if damage != "delete":
        path.write_bytes(data[:-1])
    if damage == "flip":
        path.write_bytes(data)
        factory.flip(path, 7)
    with pytest.raises(CorruptError, match=r"people/keypoints/c\.0\.0\.0"):
        TeacherStore.open(copy)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(canonical_json(document))


@pytest.mark.parametrize("schema", ["1-draft", "2", 1])
def test_another_schema_is_refused(copy: Path, schema: object) -> None:
    edit(copy / "zarr.json", lambda d: d["attributes"].update(schema=schema))
    with pytest.raises(SchemaError, match=f"must have schema '1', got {schema!r}; read it with"):
        TeacherStore.open(copy)


def test_an_identity_altered_after_the_fact_is_refused(copy: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["attributes"]["teachers"]["hrnet"]["identity"]["teacher"]["frame"] = "udp"

    edit(copy / "zarr.json", change)
    with pytest.raises(CorruptError, match="identity was altered after its fingerprint"):
        TeacherStore.open(copy)


@pytest.mark.parametrize("field", ["content", "fingerprint"])
@pytest.mark.parametrize("value", ["zz\n", "0" * 64 + "\n", "A" * 64, 7, ""])
def test_a_digest_that_is_none_is_refused_in_one_line(copy: Path, field: str, value: Any) -> None:
    edit(copy / "zarr.json", lambda d: d["attributes"]["teachers"]["hrnet"].update({field: value}))
    with pytest.raises(
        SchemaError, match=rf"^[^\n]*'{field}' must be a sha256 digest, got [^\n]*$"
    ):
        TeacherStore.open(copy)


def test_metadata_that_schema_and_identity_do_not_imply_is_refused(copy: Path) -> None:
    path = copy / "teachers/hrnet/heatmaps/zarr.json"
    edit(path, lambda d: d.update(shape=[1 << 50, 2, 3, 8, 6]))
    with pytest.raises(SchemaError, match=r"heatmaps/zarr\.json: field 'shape' must be \[7, 2, 3"):
        TeacherStore.open(copy)


def test_a_store_without_its_root_or_with_another_teacher_is_refused(copy: Path) -> None:
    with pytest.raises(SchemaError, match=r"holds the teachers hrnet; .* got 'vitpose'"):
        TeacherStore.open(copy, "vitpose")
    (copy / "zarr.json").unlink()
    with pytest.raises(IncompleteError, match=r"has no zarr\.json"):
        TeacherStore.open(copy)
