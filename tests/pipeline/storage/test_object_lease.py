"""One writer at a time in an object store."""

import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from pipeline.storage import lease as lease_module
from pipeline.storage.lease import (
    LEASE_NAME,
    LeaseHolder,
    WriterLease,
    acquire_lease,
    read_holder,
    require_lease,
    this_machine,
)
from pipeline.storage.object_folder import CLOCK_PREFIX, ObjectFolder
from store_schemas.errors import LeaseError
from tests.support.object_server import ObjectServer


@pytest.fixture
def folder(object_store: str) -> ObjectFolder:
    return ObjectFolder(object_store)


@pytest.fixture
def quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.02)


def leave_lease(folder: ObjectFolder, host: str, pid: int) -> None:
    """Leave what a writer leaves that was killed, or that does not answer."""
    folder.publish(LEASE_NAME, LeaseHolder("f" * 32, host, pid, 1_700_000_000).to_json())


def wait_until(is_so: Any) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_second_of_two_writers_is_refused_until_the_first_gives_its_lease_back(
    folder: ObjectFolder,
) -> None:
    with acquire_lease(folder) as lease:
        require_lease(folder, lease.run_id)
        with pytest.raises(LeaseError, match=rf"being written by run {lease.run_id[:8]}, .*alive"):
            acquire_lease(folder)
    assert folder.names() == []
    with pytest.raises(LeaseError, match="nobody holds it"):
        require_lease(folder, lease.run_id)
    acquire_lease(folder).release()


def test_of_writers_that_come_at_once_one_becomes_the_writer(folder: ObjectFolder) -> None:
    barrier = threading.Barrier(6)
    won: list[Any] = []
    refused: list[LeaseError] = []

    def come() -> None:
        barrier.wait()
        try:
            won.append(acquire_lease(folder))
        except LeaseError as error:
            refused.append(error)

    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 5)
    won[0].release()


def test_a_killed_writer_of_this_machine_is_replaced_at_once(folder: ObjectFolder) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    leave_lease(folder, this_machine(), int(dead.stdout))
    with acquire_lease(folder) as lease:
        require_lease(folder, lease.run_id)


def test_a_writer_elsewhere_is_dead_when_its_heartbeat_is_old_by_the_clock_of_the_object_store(
    folder: ObjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own clock, of years ago, does not count."""
    leave_lease(folder, "another-machine", 1)
    with pytest.raises(LeaseError, match="process 1 on another-machine, alive"):
        acquire_lease(folder)
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 1)
    time.sleep(2.0)  # the object store's times are whole seconds
    with acquire_lease(folder) as lease:
        require_lease(folder, lease.run_id)
    assert not [name for name, _ in folder._list() if name.startswith(CLOCK_PREFIX)]


def test_what_a_clock_left_behind_is_no_part_of_the_store_and_is_swept(
    folder: ObjectFolder,
) -> None:
    folder.publish(f"{CLOCK_PREFIX}0", b"")
    assert folder.names() == []
    folder.sweep()
    assert folder._list() == []


def test_whoever_was_taken_over_stops_beating_and_may_not_publish(
    folder: ObjectFolder, quick_heart: None
) -> None:
    former = acquire_lease(folder)
    assert isinstance(former, WriterLease)
    with acquire_lease(folder, take_over=True) as lease:
        wait_until(lambda: not former._heart.is_alive())
        require_lease(folder, lease.run_id)
        with pytest.raises(LeaseError, match=f"run {lease.run_id[:8]} holds it"):
            require_lease(folder, former.run_id)
        former.release()
        require_lease(folder, lease.run_id)


def test_a_heartbeat_renews_the_lease_though_answers_fail_or_get_lost(
    folder: ObjectFolder, object_server: ObjectServer, quick_heart: None
) -> None:
    def is_written(environ: dict[str, Any]) -> bool:
        return environ["REQUEST_METHOD"] == "PUT"

    with acquire_lease(folder) as lease:
        assert isinstance(lease, WriterLease)
        object_server.is_broken = lambda number, environ: number % 3 == 0
        object_server.loses_answer = lambda number, environ: number % 4 == 1 and is_written(environ)
        version = lease._claim
        for _ in range(5):
            wait_until(lambda before=version: lease._claim != before or not lease._heart.is_alive())
            version = lease._claim
        assert lease._heart.is_alive()
        assert read_holder(folder) == lease.run_id


def test_a_writer_whose_first_answer_gets_lost_is_the_writer_all_the_same(
    folder: ObjectFolder, object_server: ObjectServer
) -> None:
    is_lost = iter([True])
    object_server.loses_answer = lambda number, environ: (
        environ["REQUEST_METHOD"] == "PUT" and next(is_lost, False)
    )
    with acquire_lease(folder) as lease:
        require_lease(folder, lease.run_id)
    assert next(is_lost, None) is None
