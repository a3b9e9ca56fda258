"""Reading a store: byte for byte what zarr reads, in any process."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline.coco.people import IgnoreRegions
from pipeline.teacher_store import shards
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.errors import IdentityError, IncompleteError


def test_every_chunk_is_what_zarr_reads(factory: Any, whole: Path) -> None:
    """The last shard, which is not full, included."""
    store, theirs = TeacherStore.open(whole), zarr.open_group(whole, mode="r")
    heatmaps: Any = theirs["teachers/hrnet/heatmaps"]
    outputs: Any = theirs["teachers/hrnet/outputs"]
    instances, views = factory.good_views()
    found = store.read(instances, views)
    for i, (row, view) in enumerate(zip(instances.tolist(), views.tolist(), strict=True)):
        np.testing.assert_array_equal(found.heatmaps[i], heatmaps[row, view])
        np.testing.assert_array_equal(found.scale[i], outputs[row, view, :, 0])
        np.testing.assert_array_equal(found.confidence[i], outputs[row, view, :, 1])
        np.testing.assert_array_equal(found.keypoints[i], outputs[row, view, :, 2:])
    assert (heatmaps[4, 1] == 255).all()
    assert np.isnan(outputs[4, 1]).all()


def test_every_small_array_is_what_zarr_reads(whole: Path) -> None:
    store, theirs = TeacherStore.open(whole), zarr.open_group(whole, mode="r")
    array: Callable[[str], Any] = lambda path: theirs[path][:]  # type: ignore[index]  # noqa: E731
    np.testing.assert_array_equal(store.status, array("teachers/hrnet/status"))
    np.testing.assert_array_equal(store.views.image_to_crop, array("views/image_to_crop"))
    np.testing.assert_array_equal(store.people.bbox_xywh, array("people/bbox_xywh"))
    np.testing.assert_array_equal(store.people.is_labelled, array("people/is_labelled"))
    assert theirs["people"].attrs["category_id"] == 1


def test_people_and_views_come_back_as_they_were(factory: Any, whole: Path) -> None:
    store, people, views = TeacherStore.open(whole), factory.people(), factory.views()
    assert store.people.skeleton == people.skeleton
    assert store.people.image_name == people.image_name
    for name in ("image_id", "image_size_hw", "instance_id", "image_index", "area", "keypoints"):
        np.testing.assert_array_equal(getattr(store.people, name), getattr(people, name))
    for name in IgnoreRegions.__dataclass_fields__:
        found, given = getattr(store.people.ignored, name), getattr(people.ignored, name)
        np.testing.assert_array_equal(found, given)
        assert found.dtype == given.dtype
    np.testing.assert_array_equal(store.image_sha256, factory.image_sha256)
    np.testing.assert_array_equal(store.views.is_mirrored, views.is_mirrored)
    assert (store.views.recipe, store.views.seed) == (views.recipe, views.seed)
    assert (store.input_size_hw, store.heatmap_size_hw) == ((32, 24), (8, 6))
    assert (store.num_views, store.num_shards, store.threshold) == (2, 3, 0.01)
    assert (store.execution_recipe, store.provenance) == (factory.recipe, {"zarr": "3"})
    assert store.identity.teacher == factory.identity["teacher"]


def test_views_are_read_with_their_geometry(whole: Path) -> None:
    store = TeacherStore.open(whole)
    found = store.read([6, 0], [1, 0])
    np.testing.assert_array_equal(found.image_to_crop, store.views.image_to_crop[[6, 0], [1, 0]])
    assert found.is_mirrored.tolist() == [True, False]
    assert found.status.tolist() == [1, 1]


def test_heatmaps_are_decoded_into_the_given_array(whole: Path) -> None:
    store = TeacherStore.open(whole)
    out = np.zeros((2, 3, 8, 6), np.uint8)
    assert store.read([1, 2], [0, 1], out).heatmaps is out
    np.testing.assert_array_equal(out, store.read([1, 2], [0, 1]).heatmaps)
    with pytest.raises(ValueError, match=r"out must be uint8 \(2, 3, 8, 6\) in C order"):
        store.read([1, 2], [0, 1], out[:, :, ::-1])
    assert store.read([], []).heatmaps.shape == (0, 3, 8, 6)


def test_only_people_all_of_whose_views_are_there_are_present(whole: Path) -> None:
    assert TeacherStore.open(whole).present_instances().tolist() == [0, 1, 2, 3, 5, 6]


def test_a_failed_view_is_an_error_that_names_its_status(whole: Path) -> None:
    store = TeacherStore.open(whole)
    message = r"shard 1, row 4, view 1 must have status 1 \(ok\), got 3 \(output not finite\)"
    with pytest.raises(IncompleteError, match=message):
        store.read([0, 4], [0, 1])


@pytest.mark.parametrize(
    ("rows", "views"), [([7], [0]), ([-1], [0]), ([0], [2]), ([0, 1], [0]), ([0.0], [0])]
)
def test_a_view_that_the_store_does_not_have_is_an_index_error(
    whole: Path, rows: list[int], views: list[int]
) -> None:
    with pytest.raises(IndexError, match="must be"):
        TeacherStore.open(whole).read(rows, views)


def test_an_incomplete_store_says_how_much_is_there_and_can_be_read_if_asked(
    factory: Any,
    tmp_path: Path,
) -> None:
    writer = factory.create(tmp_path)
    factory.write(writer, 1)
    with pytest.raises(IncompleteError, match=r"has 1 of 3 shards; .* --resume"):
        TeacherStore.open(tmp_path)
    store = TeacherStore.open(tmp_path, require_complete=False)
    assert store.content_sha256 is None
    assert store.present_instances().tolist() == [3, 5]
    np.testing.assert_array_equal(
        store.read([5], [1]).heatmaps[0], factory.shard(range(3, 6))[0][2, 1]
    )
    with pytest.raises(IncompleteError, match=r"shard 0, row 0, view 0 .* got 0 \(not written\)"):
        store.read([0], [0])


def test_a_pickled_store_reads_the_same_and_is_no_other(factory: Any, copy: Path) -> None:
    store = TeacherStore.open(copy)
    expected = store.read(*factory.good_views()).heatmaps
    sent = pickle.dumps(store)
    np.testing.assert_array_equal(pickle.loads(sent).read(*factory.good_views()).heatmaps, expected)
    shutil.rmtree(copy)
    writer = factory.create(copy, recipe={})
    for shard in range(3):
        heatmaps, outputs, status = factory.shard(writer.shard_rows(shard))
        factory.write(writer, shard, (255 - heatmaps, outputs, status))
    factory.finish(writer)
    with pytest.raises(IdentityError, match="was replaced after it was opened"):
        pickle.loads(sent)


FORK = """
import os, sys
from pipeline.teacher_store.reader import TeacherStore
store = TeacherStore.open(sys.argv[1])
before = store.read([0, 3, 6], [0, 1, 1]).heatmaps
child = os.fork()
if child == 0:
    same = (store.read([0, 3, 6], [0, 1, 1]).heatmaps == before).all()
    os._exit(0 if same and store._heatmaps._heatmaps._state.process == os.getpid() else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert (store.read([0, 3, 6], [0, 1, 1]).heatmaps == before).all()
sys.exit(status)
"""


def test_a_forked_process_opens_its_own_files(whole: Path) -> None:
    project = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", FORK, str(whole)], cwd=project, check=True, timeout=60)


def test_open_files_stay_bounded_and_are_closed(
    factory: Any, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "KEPT_BYTES", 0)
    before = set(os.listdir("/proc/self/fd"))
    store = TeacherStore.open(whole)
    for _ in range(2):
        store.read(*factory.good_views())
        assert len(set(os.listdir("/proc/self/fd")) - before) == 1 + 1  # and that of the views
    store.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert store.read([0], [0]).status.tolist() == [1]
