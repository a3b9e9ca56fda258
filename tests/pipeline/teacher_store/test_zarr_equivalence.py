"""Every chunk of every array of generated stores is what zarr reads, and rows are whole arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from pipeline.teacher_store import shards, stored_views
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.layout import read_array
from store_schemas.teacher_store import Status
from tests.support.generated_store import write_store

CASES = [
    ("default", 1),
    ("default", 20),
    ("small", 3),
    ("fast", 3),
    ("lossless-float16", 1),
    ("lossless-float16", 3),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def store_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("equivalence") / "store.zarr"
    write_store(path, *request.param)
    return path


def ok_views(store: TeacherStore) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and views that are there, shuffled."""
    pairs = np.random.default_rng(3).permutation(np.argwhere(store.status == Status.OK))
    return pairs[:, 0], pairs[:, 1]


def zarr_array(path: Path, name: str) -> NDArray[Any]:
    return np.asarray(zarr.open_array(path / name, mode="r")[...])


def test_every_view_is_what_zarr_reads(store_path: Path) -> None:
    store = TeacherStore.open(store_path)
    rows, columns = ok_views(store)
    found = store.read(rows, columns)
    heatmaps = zarr_array(store_path, "teachers/hrnet/heatmaps")[rows, columns]
    outputs = zarr_array(store_path, "teachers/hrnet/outputs")[rows, columns]
    np.testing.assert_array_equal(found.heatmaps, heatmaps, strict=True)
    np.testing.assert_array_equal(found.scale, outputs[..., 0], strict=True)
    np.testing.assert_array_equal(found.confidence, outputs[..., 1], strict=True)
    np.testing.assert_array_equal(found.keypoints, outputs[..., 2:], strict=True)
    assert all(a.flags.c_contiguous for a in (found.scale, found.confidence, found.keypoints))


def test_every_other_array_is_what_zarr_reads(store_path: Path) -> None:
    layout = TeacherStore.open(store_path)._layout
    for path, spec in layout.specs.items():
        if spec.is_sharded:
            continue
        found, theirs = read_array(layout.folder, spec), zarr_array(store_path, path)
        np.testing.assert_array_equal(found, theirs, strict=True)


def test_affines_read_by_row_are_those_of_the_whole_array(store_path: Path) -> None:
    store = TeacherStore.open(store_path)
    rows, columns = ok_views(store)
    expected = store.views.image_to_crop[rows, columns]
    np.testing.assert_array_equal(store.read(rows, columns).image_to_crop, expected, strict=True)
    np.testing.assert_array_equal(store.read_image_to_crop(rows, columns), expected, strict=True)
    mirrored = store.views.is_mirrored[rows, columns]
    np.testing.assert_array_equal(store.read(rows, columns).is_mirrored, mirrored, strict=True)


def test_what_a_process_keeps_is_bounded_and_changes_nothing(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one shard and one chunk, every view is read as with room for all."""
    whole = TeacherStore.open(store_path)
    rows, columns = ok_views(whole)
    monkeypatch.setattr(shards, "KEPT_BYTES", 0)
    monkeypatch.setattr(stored_views, "MAX_OPEN_CHUNKS", 1)
    store = TeacherStore.open(store_path)
    expected = whole.read(rows, columns)
    for _ in range(2):  # the second time by pieces, as every shard was compared then
        found = store.read(rows, columns)
        for name in expected.__dataclass_fields__:
            given = getattr(expected, name)
            np.testing.assert_array_equal(getattr(found, name), given, strict=True)
    assert store._heatmaps is not None
    assert len(store._heatmaps._heatmaps.kept()) == 1
    assert len(store.views._files) == 1


def test_reading_does_not_load_the_array_of_all_affines(store_path: Path) -> None:
    store = TeacherStore.open(store_path)
    store.read([0], [0])
    assert not {"image_to_crop", "is_mirrored"} & set(vars(store.views))
