"""Objects of an S3 server that is slow, full of errors or gone."""

import hashlib
import multiprocessing
import os
import pickle
import signal
import sys
from pathlib import Path

import pytest

from pipeline.errors import ObjectStoreError
from pipeline.storage import object_client, object_folder
from pipeline.storage.folder import LocalFolder, open_folder
from pipeline.storage.object_folder import ObjectFolder
from store_schemas.errors import CorruptError, StoreError
from tests.support.object_server import ObjectServer


@pytest.fixture
def folder(object_store: str, monkeypatch: pytest.MonkeyPatch) -> ObjectFolder:
    monkeypatch.setattr(object_client, "MAX_RETRIES", 3)
    monkeypatch.setattr(object_client, "RETRY_SECONDS", 5)
    return ObjectFolder(object_store)


def test_an_object_store_keeps_objects_as_a_folder_does(
    folder: ObjectFolder, tmp_path: Path
) -> None:
    data = {"zarr.json": b"{}", "a/b c/c.0": os.urandom(3_000_000), "a/empty": b"", "z": b"1"}
    local = LocalFolder(tmp_path)
    for one in (folder, local):
        for name, content in data.items():
            one.publish(name, b"former")
            one.publish(name, content)
        one.remove("z", "was/never/there")
        one.sweep()
    for name in data:
        assert folder.size(name) == local.size(name)
    assert folder.names() == local.names()
    assert folder.num_bytes() == local.num_bytes()
    for name in local.names():
        assert folder.read(name, 3_000_000) == data[name]
        assert folder.sha256(name) == local.sha256(name)
        descriptor = folder.open_descriptor(name)
        assert os.pread(descriptor, 4_000_000, 0) == data[name]
        assert os.fstat(descriptor).st_size == len(data[name])
        os.close(descriptor)


def test_what_is_not_there_is_missing_and_what_is_too_long_is_corrupt(
    folder: ObjectFolder, object_server: ObjectServer
) -> None:
    assert folder.names() == []
    assert folder.size("a") is None
    for ask in (folder.sha256, folder.open_descriptor, lambda name: folder.read(name, 9)):
        with pytest.raises(FileNotFoundError):
            ask("a")
    folder.publish("a", b"0123456789")
    with pytest.raises(CorruptError, match="a must have at most 9 bytes, got 10"):
        folder.read("a", 9)


def test_publishing_is_one_request_however_long_the_object(
    folder: ObjectFolder, object_server: ObjectServer
) -> None:
    folder.publish("a", bytes(12_000_000))
    assert object_server.asked == {"PUT": 1}


def test_every_other_request_may_fail(folder: ObjectFolder, object_server: ObjectServer) -> None:
    object_server.is_broken = lambda number, _: number % 2 == 1
    data = os.urandom(100_000)
    folder.publish("a", data)
    assert folder.read("a", len(data)) == data
    assert folder.names() == ["a"]
    assert folder.sha256("a") == hashlib.sha256(data).hexdigest()
    folder.remove("a")
    assert folder.size("a") is None


def test_an_answer_that_breaks_off_is_asked_for_again(
    folder: ObjectFolder, object_server: ObjectServer
) -> None:
    data = os.urandom(3_000_000)
    folder.publish("a", data)
    object_server.heal()
    object_server.breaks_off = lambda number, _: number == 1
    descriptor = folder.open_descriptor("a")
    assert os.pread(descriptor, len(data), 0) == data
    assert os.fstat(descriptor).st_size == len(data)
    os.close(descriptor)
    assert object_server.asked["GET"] == 2


def test_an_object_store_that_only_fails_is_given_up_with_one_line(
    folder: ObjectFolder, object_server: ObjectServer
) -> None:
    object_server.is_broken = lambda number, environ: True
    with pytest.raises(ObjectStoreError, match=r"failed every request to read a: .*503") as refusal:
        folder.read("a", 9)
    assert "\n" not in str(refusal.value)
    assert object_server.asked["GET"] == object_folder.ATTEMPTS * (1 + object_client.MAX_RETRIES)
    with pytest.raises(ObjectStoreError, match="failed every request to write a: "):
        folder.publish("a", b"1")


def test_a_slow_object_store_is_asked_no_longer_than_the_limit(
    object_store: str, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_client, "MAX_RETRIES", 1)
    monkeypatch.setattr(object_client, "REQUEST_SECONDS", 0.2)
    object_server.seconds = 1.0
    with pytest.raises(ObjectStoreError, match=r"failed every request to list objects: "):
        ObjectFolder(object_store).names()


def test_a_bucket_that_is_not_there_and_a_server_that_is_gone_are_named(
    object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_client, "MAX_RETRIES", 1)
    with pytest.raises(ObjectStoreError, match="must lie in a bucket that exists"):
        ObjectFolder("s3://no-such-bucket/a").publish("a", b"")
    with pytest.raises(ObjectStoreError, match="must lie in a bucket that exists"):
        ObjectFolder("s3://no-such-bucket/a").read("a", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ObjectStoreError, match=r"failed every request to read zarr\.json: "):
        ObjectFolder("s3://bucket/a").read("zarr.json", 1)


@pytest.mark.parametrize(
    "location",
    ["s3://", "s3:///a", "s3://bucket/../a", "s3://b//a", "s3://key:secret@b/a", "s3://b/a?x=1"],
)
def test_a_location_that_is_not_understood_is_refused(location: str) -> None:
    with pytest.raises(StoreError, match="must be SCHEME://BUCKET/NAME"):
        open_folder(location)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError, match=r"uv sync --extra objects"):
        open_folder("s3://bucket/teacher.zarr")


def test_a_folder_is_sent_to_other_processes_by_its_location(folder: ObjectFolder) -> None:
    folder.publish("a", b"1")
    assert pickle.loads(pickle.dumps(folder)).read("a", 1) == b"1"
    assert str(open_folder(f"{folder}/")) == str(folder)


def test_a_forked_process_is_refused_instead_of_waiting_for_ever(folder: ObjectFolder) -> None:
    folder.publish("a", b"1")
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            folder.read("a", 1)
        except StoreError as error:
            os._exit(7 if "start processes by forkserver or spawn" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.slow
def test_a_process_that_is_started_afresh_reads(folder: ObjectFolder) -> None:
    folder.publish("a", b"1")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(folder.read, ("a", 1)) == b"1"
