"""One writer at a time, whoever is killed, hangs or comes back."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from pipeline.storage import files, lease
from pipeline.storage.files import walk_files
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import LEASE_NAME, acquire_lease, read_holder, require_lease
from store_schemas.errors import LeaseError, StorageError, StoreError

FORK = multiprocessing.get_context("fork")


class Child:
    """A process that does what it is told, one thing after another."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self.pipe, theirs = FORK.Pipe()
        self.process = FORK.Process(target=work, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


def hold(pipe: Connection, path: Path) -> None:
    """Acquire the lease when told to, say how that went, and give it back when told to."""
    pipe.send("ready")
    pipe.recv()
    try:
        held = acquire_lease(LocalFolder(path))
    except LeaseError as error:
        pipe.send(str(error))
        return
    pipe.send(held.run_id)
    pipe.recv()
    held.release()
    pipe.send("released")


def held_by_child(path: Path) -> Child:
    child = Child(hold, path)
    assert child.pipe.recv() == "ready"
    child.pipe.send("go")
    assert len(child.pipe.recv()) == 32
    return child


def change_holder(path: Path, *, age: float = 0, **changes: object) -> None:
    """Rewrite the lease of a dead writer, as it would stand after that many seconds."""
    file = path / LEASE_NAME
    document = {"run_id": "ab" * 16, "host": "elsewhere", "pid": 17, "heartbeat": 0, **changes}
    file.write_bytes(json.dumps(document).encode().ljust(512))
    then = time.time() - age
    os.utime(file, (then, then))


def test_of_two_processes_started_at_once_exactly_one_gets_the_lease(tmp_path: Path) -> None:
    """Fifty times; the other is told who has it."""
    for race in range(50):
        path = tmp_path / f"store{race}"
        children = [Child(hold, path) for _ in range(2)]
        for child in children:
            assert child.pipe.recv() == "ready"
        for child in children:
            child.pipe.send("go")
        said = [child.pipe.recv() for child in children]
        winners = [i for i, text in enumerate(said) if len(text) == 32]
        assert len(winners) == 1, said
        winner = children[winners[0]]
        assert (
            f"is being written by run {said[winners[0]][:8]}, process {winner.process.pid} on "
            f"{socket.gethostname()}, alive 0 s ago; wait for it, or replace it with --take-over"
        ) in said[1 - winners[0]]
        winner.pipe.send("release")
        assert winner.pipe.recv() == "released"
        assert walk_files(path) == []
        for child in children:
            child.process.join()


def test_a_killed_holder_of_this_machine_is_replaced_at_once(tmp_path: Path) -> None:
    child = held_by_child(tmp_path)
    with pytest.raises(LeaseError, match=f"process {child.process.pid} on"):
        acquire_lease(LocalFolder(tmp_path))
    child.kill()
    with acquire_lease(LocalFolder(tmp_path)) as held:
        assert read_holder(LocalFolder(tmp_path)) == held.run_id
    assert walk_files(tmp_path) == []


def wait_with_a_fork(pipe: Connection, path: Path) -> None:
    acquire_lease(LocalFolder(path))
    orphan = os.fork()
    if orphan == 0:
        time.sleep(60)
        os._exit(0)
    pipe.send(orphan)
    time.sleep(60)


def test_a_worker_that_outlives_its_killed_parent_does_not_keep_the_lease(tmp_path: Path) -> None:
    child = Child(wait_with_a_fork, tmp_path)
    orphan = child.pipe.recv()
    try:
        child.kill()
        acquire_lease(LocalFolder(tmp_path)).release()
    finally:
        os.kill(orphan, signal.SIGKILL)


def release_inherited(pipe: Connection, held: lease.WriterLease) -> None:
    held.release()
    pipe.send("done")


def test_a_forked_child_cannot_give_its_parents_lease_back(tmp_path: Path) -> None:
    with acquire_lease(LocalFolder(tmp_path)) as held:
        assert Child(release_inherited, held).pipe.recv() == "done"
        require_lease(LocalFolder(tmp_path), held.run_id)
        with pytest.raises(LeaseError, match=f"process {os.getpid()} on"):
            acquire_lease(LocalFolder(tmp_path))


def test_a_holder_of_another_machine_is_replaced_after_ten_minutes_without_a_heartbeat(
    tmp_path: Path,
) -> None:
    change_holder(tmp_path, age=590)
    with pytest.raises(
        LeaseError, match=r"by run abababab, process 17 on elsewhere, alive 59\d s ago; wait"
    ):
        acquire_lease(LocalFolder(tmp_path))
    change_holder(tmp_path, age=601)
    acquire_lease(LocalFolder(tmp_path)).release()


def test_the_clocks_of_two_machines_need_not_agree(tmp_path: Path) -> None:
    """What a holder's own clock says of its heartbeat decides nothing."""
    change_holder(tmp_path, age=601, heartbeat=round(time.time()) + 86400)
    acquire_lease(LocalFolder(tmp_path)).release()
    change_holder(tmp_path, age=0, heartbeat=round(time.time()) - 86400)
    with pytest.raises(LeaseError, match="elsewhere, alive 0 s ago"):
        acquire_lease(LocalFolder(tmp_path))


def test_taking_over_replaces_a_living_holder_which_then_may_not_write(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    old = acquire_lease(folder)
    with acquire_lease(folder, take_over=True) as new:
        with pytest.raises(LeaseError, match=f"but run {new.run_id[:8]} holds it: another writer"):
            require_lease(folder, old.run_id)
        old.release()
        require_lease(folder, new.run_id)
        with pytest.raises(LeaseError, match=f"run {new.run_id[:8]}"):
            acquire_lease(folder)
    assert walk_files(tmp_path) == []


def test_a_run_that_was_replaced_publishes_nothing_more(factory: Any, tmp_path: Path) -> None:
    """Neither a shard, nor the receipt of one that is half-written, nor the manifest."""
    writer = factory.create(tmp_path)
    for shard in range(2):
        factory.write(writer, shard)
    with acquire_lease(LocalFolder(tmp_path), take_over=True):
        before = factory.digests(tmp_path)
        with pytest.raises(LeaseError, match="nothing more is published by this one"):
            factory.write(writer, 2)
        with pytest.raises(LeaseError, match="nothing more is published by this one"):
            factory.write(writer, 0)
        assert factory.digests(tmp_path) == before
    factory.let_go(tmp_path)
    whole = factory.resume(tmp_path)
    factory.write(whole, 2)
    with acquire_lease(LocalFolder(tmp_path), take_over=True):
        before = factory.digests(tmp_path)
        with pytest.raises(LeaseError, match="nothing more is published by this one"):
            whole.finish()
        assert factory.digests(tmp_path) == before


@pytest.mark.parametrize("text", [b"", b"\0" * 512, b'{"run_id": "ab', b"[1]", b"{}"])
def test_a_lease_that_names_nobody_is_given_ten_minutes(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / LEASE_NAME
    file.write_bytes(text)
    with pytest.raises(LeaseError, match=r"a writer that writer\.json does not name, alive 0 s"):
        acquire_lease(LocalFolder(tmp_path))
    os.utime(file, (time.time() - 601,) * 2)
    acquire_lease(LocalFolder(tmp_path)).release()
    file.write_bytes(text)
    acquire_lease(LocalFolder(tmp_path), take_over=True).release()
    assert walk_files(tmp_path) == []


def make_link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("mine")
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, make_link])
def test_a_lease_that_is_no_file_is_refused_and_not_followed(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / LEASE_NAME)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(StoreError, match=r"writer\.json must be a regular file, but is none; rem"):
        acquire_lease(LocalFolder(tmp_path))
    assert read_holder(LocalFolder(tmp_path)) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    if make is make_link:
        assert (tmp_path / "elsewhere").read_text() == "mine"


def test_folders_made_for_a_lease_vanish_with_it_unless_something_was_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a" / "b" / "store"
    acquire_lease(LocalFolder(path)).release()
    assert list(tmp_path.iterdir()) == []
    with acquire_lease(LocalFolder(path)):
        (path / "kept").write_text("x")
    assert walk_files(tmp_path) == [path / "kept"]
    (tmp_path / "empty").mkdir()
    acquire_lease(LocalFolder(tmp_path / "empty")).release()
    assert (tmp_path / "empty").is_dir()


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "dangling"):
        with pytest.raises(StoreError, match="must be a folder, but is a file; choose another"):
            acquire_lease(LocalFolder(path))
    with pytest.raises(StorageError, match=r"/proc/store/writer\.json cannot be written: No such"):
        acquire_lease(LocalFolder(Path("/proc/store")))


def test_a_heartbeat_tells_the_time_and_one_that_fails_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    with acquire_lease(LocalFolder(tmp_path)) as held:
        file = tmp_path / LEASE_NAME
        failed, write = [], os.pwrite

        def fail(*_: object) -> int:
            failed.append(1)
            raise OSError("gone")

        monkeypatch.setattr(os, "pwrite", fail)
        while not failed:
            time.sleep(0.01)
        monkeypatch.setattr(os, "pwrite", write)
        os.utime(file, (0, 0))
        while time.time() - file.stat().st_mtime > 60:
            time.sleep(0.01)
        assert file.stat().st_size == 512
        assert json.loads(file.read_bytes())["run_id"] == held.run_id


def test_without_locks_a_dead_process_or_an_old_heartbeat_frees_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some cluster file systems are mounted."""
    monkeypatch.setattr(files, "_lock", lambda _: None)
    dead = FORK.Process(target=int)
    dead.start()
    dead.join()
    host = socket.gethostname()
    change_holder(tmp_path, host=host, pid=os.getpid())
    with pytest.raises(LeaseError, match=f"process {os.getpid()} on"):
        acquire_lease(LocalFolder(tmp_path))
    change_holder(tmp_path, host=host, pid=dead.pid)
    acquire_lease(LocalFolder(tmp_path)).release()
    change_holder(tmp_path, host=host, pid=os.getpid(), age=601)
    acquire_lease(LocalFolder(tmp_path)).release()


def test_without_hard_links_the_lease_is_renamed_into_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError(errno.EPERM, "no links")))
    with acquire_lease(LocalFolder(tmp_path)) as held:
        require_lease(LocalFolder(tmp_path), held.run_id)
    assert walk_files(tmp_path) == []
