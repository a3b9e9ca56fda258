"""What a store holds is what zarr-python, TensorStore and zarrita (JavaScript) read from it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from numpy.typing import NDArray

from pipeline.teacher_store.reader import TeacherStore
from store_schemas.array_spec import ArraySpec
from store_schemas.profiles import PROFILES
from store_schemas.reading import read_array
from store_schemas.teacher_store import Status
from tests.support.generated_store import CROPS, ROWS_PER_SHARD, N, crops_and_tokens, write_store

HERE = Path(__file__).parent
NO_REGISTRY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "E403", "E503")


@pytest.fixture(scope="module", params=[*PROFILES, "default, crops and tokens"])
def store_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store whose last shard is partial, with people and views that failed."""
    path = tmp_path_factory.mktemp("interoperability") / "store.zarr"
    profile, *more = request.param.split(", ")
    write_store(path, profile, 3, with_crops_and_tokens=bool(more))
    return path


def specs_of(path: Path) -> dict[str, ArraySpec]:
    return TeacherStore.open(path)._layout.specs


def ours(path: Path) -> dict[str, NDArray[Any]]:
    """Return every array as this program reads it; where a view failed, the fill value."""
    store = TeacherStore.open(path)
    found = {}
    for name, spec in specs_of(path).items():
        if not spec.is_sharded:
            found[name] = read_array(store._layout.folder, spec)
            continue
        whole = np.full(spec.shape, spec.fill_value, spec.dtype)
        rows, views = np.nonzero(store.status == Status.OK)
        whole[rows, views] = read_sharded(store, name.removeprefix("teachers/hrnet/"), rows, views)
        found[name] = whole
    return found


def read_sharded(
    store: TeacherStore, name: str, rows: NDArray[np.int64], views: NDArray[np.int64]
) -> NDArray[Any]:
    if name == "heatmaps":
        return store.read(rows, views).heatmaps
    if name.endswith("_tokens"):
        return store.read_tokens(rows, views)[name.removesuffix("_tokens")]
    assert name == "crops"
    files = np.zeros((len(rows), CROPS.length), np.uint8)  # followed by zeros
    for out, row, view in zip(files, rows.tolist(), views.tolist(), strict=True):
        shard = range(row - row % ROWS_PER_SHARD, min(row - row % ROWS_PER_SHARD + 3, N))
        file = crops_and_tokens(shard, 3)["crops"][row - shard.start, view]
        out[: len(file)] = file
    return files


def test_zarr_python_reads_every_array(store_path: Path) -> None:
    root = zarr.open_group(store_path, mode="r", zarr_format=3)
    for name, expected in ours(store_path).items():
        array = root[name]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(np.asarray(array[...]), expected, strict=True)
    assert root.attrs["schema"] == "1"


def test_tensorstore_reads_every_array(store_path: Path) -> None:
    for name, expected in ours(store_path).items():
        kvstore = {"driver": "file", "path": str(store_path / name)}
        array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()
        np.testing.assert_array_equal(array.read().result(), expected, strict=True)
        assert array.domain.labels == specs_of(store_path)[name].dimension_names


@pytest.fixture(scope="session")
def zarrita_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with zarrita as package-lock.json pins it, and the program that reads with it."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed here, so zarrita cannot read the store")
    folder = tmp_path_factory.mktemp("zarrita")
    for name in ("package.json", "package-lock.json", "read_arrays.mjs"):
        shutil.copy(HERE / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode and any(code in result.stderr for code in NO_REGISTRY):
        pytest.skip("the registry of npm does not answer here, so zarrita cannot be installed")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_zarrita_reads_every_array(store_path: Path, zarrita_folder: Path, tmp_path: Path) -> None:
    """But float16 where JavaScript has no Float16Array, and arrays without rows."""
    expected = ours(store_path)
    command = ["node", "read_arrays.mjs", str(store_path), str(tmp_path), *expected]
    result = subprocess.run(
        command, cwd=zarrita_folder, capture_output=True, text=True, check=True, timeout=120
    )
    found: dict[str, Any] = json.loads(result.stdout)
    for index, (name, values) in enumerate(expected.items()):
        error = found[name].get("error", "")
        if values.dtype == np.float16 and "float16" in error:
            continue
        if values.size == 0 and "empty iterator" in error:
            continue
        assert not error, name
        assert (found[name]["dtype"], found[name]["shape"]) == (values.dtype, list(values.shape))
        stored = (tmp_path / f"{index}.bin").read_bytes()
        theirs = np.frombuffer(stored, values.dtype.newbyteorder("<")).reshape(values.shape)
        np.testing.assert_array_equal(theirs, values, err_msg=name)
    may_fail = {n for n, v in expected.items() if v.dtype == np.float16 or v.size == 0}
    assert {name for name, each in found.items() if "error" in each} <= may_fail
