"""A teacher store in an object store: the very bytes of a local one, read as one."""

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.repair.verification import verify_store
from pipeline.storage.folder import open_folder
from pipeline.storage.lease import LEASE_NAME
from pipeline.storage.object_folder import ObjectFolder
from pipeline.teacher_store.cached_folder import CachedFolder, open_for_reading
from pipeline.teacher_store.opening import layout_of
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.errors import CorruptError, IdentityError, IncompleteError, StoreError
from store_schemas.root_metadata import read_entry
from tests.support.object_server import BUCKET, ObjectServer

HEATMAPS = "teachers/hrnet/heatmaps/c.1.0.0.0.0"


@pytest.fixture
def remote(factory: Any, object_server: ObjectServer) -> str:
    """A complete store in an object store, the same for all tests: nobody changes it."""
    place = f"s3://{BUCKET}/shared/teacher.zarr"
    if open_folder(place).size("zarr.json") is None:
        factory.write_rest(factory.create(place, name="hrnet"))
    return place


@pytest.fixture
def own(factory: Any, object_store: str) -> str:
    """A complete store that a test may damage."""
    factory.write_rest(factory.create(object_store, name="hrnet"))
    return object_store


@pytest.fixture
def local(factory: Any, tmp_path: Path) -> Path:
    factory.write_rest(factory.create(tmp_path / "local.zarr", name="hrnet"))
    return tmp_path / "local.zarr"


def digests(location: str | Path) -> dict[str, str]:
    folder = open_folder(location)
    return {name: folder.sha256(name) for name in folder.names() if name != LEASE_NAME}


def assert_reads_as(factory: Any, store: TeacherStore, other: TeacherStore) -> None:
    instances, views = factory.good_views()
    found, expected = (vars(one.read(instances, views)) for one in (store, other))
    assert len(found) > 4
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_a_store_in_an_object_store_has_the_names_and_bytes_of_a_local_one(
    factory: Any, remote: str, local: Path
) -> None:
    assert digests(remote) == digests(local)
    assert len(digests(remote)) > 20
    assert open_folder(remote).num_bytes() == open_folder(local).num_bytes()


def test_a_store_in_an_object_store_reads_as_a_local_one(
    factory: Any, remote: str, local: Path, object_server: ObjectServer
) -> None:
    object_server.is_broken = lambda number, _: number % 5 == 0
    assert_reads_as(factory, TeacherStore.open(remote), TeacherStore.open(local))


@pytest.mark.slow
def test_a_writer_that_stopped_after_any_request_is_carried_on_to_the_same_bytes(
    factory: Any, object_store: str, local: Path, object_server: ObjectServer
) -> None:
    """What a killed writer leaves is what its last request left."""
    for number in range(3):
        place = f"{object_store}{number}"
        writer = factory.create(place, name="hrnet")
        factory.write(writer, 0)
        object_server.heal()
        last = 1 + 2 * number
        object_server.is_broken = lambda _, environ: (
            environ["REQUEST_METHOD"] == "PUT" and object_server.asked["PUT"] > last  # noqa: B023
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.storage.object_client.MAX_RETRIES", 0)
            patch.setattr("pipeline.storage.object_folder.ATTEMPTS", 1)
            writer.layout.folder._own = None
            with pytest.raises(Exception, match="failed every request to write"):
                factory.write_rest(writer)
        object_server.heal()
        factory.let_go(place)
        with pytest.raises(IncompleteError, match=r"of 3 shards|no zarr\.json"):
            TeacherStore.open(place)
        factory.write_rest(factory.resume(place))
        assert digests(place) == digests(local)


def test_opening_asks_for_no_shard_whose_views_are_all_there(
    remote: str, object_server: ObjectServer
) -> None:
    """Row 4, of shard 1, has a view that is not finite."""
    object_server.heal()
    TeacherStore.open(remote)
    status = [key for key in object_server.bodies if "/status/c" in key]
    assert len(status) == 1
    assert status[0].endswith("/status/c.1.0")
    assert not [key for key in object_server.bodies if "/heatmaps/c" in key]


def test_without_a_cache_a_shard_is_taken_once_for_all_its_views(
    factory: Any, remote: str, object_server: ObjectServer
) -> None:
    store = TeacherStore.open(remote)
    object_server.heal()
    for _ in range(3):
        store.read(*factory.good_views())
    shards = [count for key, count in object_server.bodies.items() if "/heatmaps/c" in key]
    assert shards == [1, 1, 1]
    store.close()


def test_a_cache_asks_for_every_shard_once_and_then_for_none(
    factory: Any, remote: str, local: Path, tmp_path: Path, object_server: ObjectServer
) -> None:
    object_server.heal()
    for _ in range(2):
        store = TeacherStore.open(open_for_reading(remote, tmp_path / "cache"))
        assert_reads_as(factory, store, TeacherStore.open(local))
        store.close()
    asked = {
        k: c for k, c in object_server.bodies.items() if "/heatmaps/c" in k or "/outputs/c" in k
    }
    assert len(asked) == 6
    assert set(asked.values()) == {1}


def test_a_damaged_copy_is_replaced_and_never_read(
    factory: Any, remote: str, local: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    TeacherStore.open(open_for_reading(remote, cache)).read(*factory.good_views())
    copies = [path for path in cache.rglob("*") if path.is_file()]
    assert len(copies) > 8
    for i, path in enumerate(copies):
        if i % 3:
            factory.flip(path, path.stat().st_size // 2)
        else:
            os.truncate(path, path.stat().st_size // 2)
    store = TeacherStore.open(open_for_reading(remote, cache))
    assert_reads_as(factory, store, TeacherStore.open(local))


@pytest.mark.slow
def test_another_store_at_the_same_place_finds_nothing_in_the_cache(
    factory: Any, object_store: str, tmp_path: Path
) -> None:
    contents, sent = [], []
    for factor in (1, 2):
        folder = open_folder(object_store)
        folder.remove(*folder.names())
        writer = factory.create(object_store, name="hrnet")
        for shard in writer.pending_shards():
            heatmaps, outputs, status = factory.shard(writer.shard_rows(shard))
            factory.write(writer, shard, (heatmaps // factor, outputs, status))
        contents.append(factory.finish(writer))
        opened = open_for_reading(object_store, tmp_path / "cache")
        found = TeacherStore.open(opened).read([0], [0]).heatmaps[0]
        np.testing.assert_array_equal(found, factory.shard(range(3))[0][0, 0] // factor)
        sent.append(pickle.dumps(opened))
    assert len(set(contents)) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 2
    with pytest.raises(IdentityError, match="was replaced after it was opened"):
        pickle.loads(sent[0])


def test_readers_that_begin_at_once_share_a_cache(
    factory: Any, remote: str, local: Path, tmp_path: Path
) -> None:
    expected = TeacherStore.open(local).read(*factory.good_views()).heatmaps
    wrong: list[object] = []

    def read() -> None:
        store = TeacherStore.open(open_for_reading(remote, tmp_path / "cache"))
        found = store.read(*factory.good_views()).heatmaps
        if not np.array_equal(found, expected):
            wrong.append(found)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_damage_of_the_store_itself_is_named_by_view_with_and_without_a_cache(
    factory: Any, own: str, tmp_path: Path
) -> None:
    folder = open_folder(own)
    data = bytearray(folder.read(HEATMAPS, 1 << 20))
    data[3] ^= 1
    folder.publish(HEATMAPS, bytes(data))
    for cache in (None, tmp_path / "cache"):
        store = TeacherStore.open(open_for_reading(own, cache))
        instances, views = np.array([3, 3, 4, 5, 5]), np.array([0, 1, 0, 0, 1])
        found = []
        for one in zip(instances, views, strict=True):
            try:
                store.read(*(np.array([index]) for index in one))
            except CorruptError as error:
                found.append(str(error))
        assert len(found) == 1
        assert "shard 1, row 3, view 0" in found[0]


def test_only_a_complete_store_is_cached_and_a_cache_is_not_written_through(
    factory: Any, object_store: str, tmp_path: Path
) -> None:
    writer = factory.create(object_store, name="hrnet")
    with pytest.raises(IncompleteError, match="must be complete to be cached"):
        open_for_reading(object_store, tmp_path / "cache")
    factory.write_rest(writer)
    cached = open_for_reading(object_store, tmp_path / "cache")
    assert isinstance(cached, CachedFolder)
    with pytest.raises(StoreError, match="cannot be written"):
        cached.publish("a", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="must be a folder, but is a file"):
        open_for_reading(object_store, tmp_path / "file")


def test_a_store_is_verified_in_place(factory: Any, own: str) -> None:
    folder = open_folder(own)
    assert isinstance(folder, ObjectFolder)
    entry = read_entry(folder, None)
    layout = layout_of(folder, entry)
    faults = verify_store(layout, entry).faults
    assert (faults.metadata, faults.shards, faults.foreign) == ([], {}, [])
    folder.remove(HEATMAPS)
    faults = verify_store(layout, entry).faults
    assert list(faults.shards) == [1]
