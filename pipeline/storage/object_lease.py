"""One writer at a time in an object store: ``writer.json``, changed only by conditional writes.

Of two writers that come at once the object store lets one write. The holder's heartbeat replaces
the version that it wrote last; if another run took over there is another version, and it stops. No
lock tells that a writer was killed: on its own machine its process is looked for, elsewhere it
counts as dead when its heartbeat is ten minutes old by the object store's clock.
"""

import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from pipeline.errors import ObjectStoreError
from pipeline.storage.lease import HEARTBEAT_SECONDS, WriterLease, read_holder
from pipeline.storage.lease_file import (
    LEASE_BYTES,
    LEASE_NAME,
    STALE_SECONDS,
    LeaseHolder,
    is_process,
    parse_holder,
)
from pipeline.storage.object_folder import CLOCK_PREFIX, ObjectFolder, ObjectVersion
from store_schemas.errors import LeaseError, StoreError

_ATTEMPTS = 20


class ObjectLease(WriterLease):
    """The right to write one store of an object store; a context manager that gives it back."""

    def __init__(self, folder: ObjectFolder, holder: LeaseHolder, version: ObjectVersion) -> None:
        """Use ``acquire_lease``."""
        self.run_id = holder.run_id
        self._objects = folder
        self._holder = holder
        self._version = version
        self._process = os.getpid()
        self._is_over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Give the lease back, unless another run took over."""
        if self._is_over.is_set() or self._process != os.getpid():
            return
        self._is_over.set()
        self._heart.join()
        # What ends a run must not be hidden by an object store that does not answer.
        with suppress(StoreError, ObjectStoreError):
            if read_holder(self._objects) == self.run_id:
                self._objects.remove(LEASE_NAME)

    def forget(self) -> None:
        """Stop to say that this run lives, leaving it to others to see that."""
        self._is_over.set()

    def _beat(self) -> None:
        while not self._is_over.wait(HEARTBEAT_SECONDS):
            # One that fails is made up for by the next, or others may replace this run in time.
            with suppress(ObjectStoreError):
                if not self._renew():
                    return

    def _renew(self) -> bool:
        """Say that this run lives; False: another one took over."""
        alive = replace(self._holder, heartbeat=round(time.time())).to_json()
        version = self._objects.put_if(LEASE_NAME, alive, self._version)
        if version is None:  # taken over, or written by a request whose answer was lost
            found = self._objects.version(LEASE_NAME)
            if found is None or read_holder(self._objects) != self.run_id:
                return False
            version = found
        self._version = version
        return True


def acquire_object_lease(folder: ObjectFolder, *, take_over: bool) -> ObjectLease:
    """Become the one writer of a store; as ``acquire_lease``."""
    run_id = uuid.uuid4().hex
    for _ in range(_ATTEMPTS):
        former = folder.version(LEASE_NAME)
        if former is not None and not take_over:
            _require_dead(folder, former)
        holder = LeaseHolder(run_id, this_machine(), os.getpid(), round(time.time()))
        version = folder.put_if(LEASE_NAME, holder.to_json(), former)
        # Its answer may have been lost; and there are object stores that ignore conditions.
        if read_holder(folder) == run_id:
            version = version or folder.version(LEASE_NAME)
            if version is not None:
                return ObjectLease(folder, holder, version)
    raise LeaseError(f"{folder} changes hands all the time; run again when that is over")


@cache
def this_machine() -> str:
    """Return a name that no other running machine has, even one of the same host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:  # no Linux
        boot = f"{uuid.getnode():012x}"
    return f"{socket.gethostname()}-{boot}"


def _require_dead(folder: ObjectFolder, former: ObjectVersion) -> None:
    """Refuse unless the former holder is dead, or gave its lease back meanwhile."""
    try:
        holder = parse_holder(folder.read(LEASE_NAME, LEASE_BYTES))
    except FileNotFoundError:
        return
    if holder is not None and holder.host == this_machine() and not is_process(holder.pid):
        return
    age = _age(folder, former)
    if age < STALE_SECONDS:
        who = holder or f"a writer that {LEASE_NAME} does not name"
        raise LeaseError(
            f"{folder} is being written by {who}, alive {max(0, round(age))} s ago; wait for it, "
            "or replace it with --take-over"
        )


def _age(folder: ObjectFolder, version: ObjectVersion) -> float:
    """Return how old a version is in seconds, by the object store's own clock."""
    name = f"{CLOCK_PREFIX}{uuid.uuid4().hex}"
    folder.publish(name, b"")
    try:
        now = folder.version(name)
    finally:
        folder.remove(name)
    if now is None or now.modified is None or version.modified is None:
        return 0.0
    return (now.modified - version.modified).total_seconds()
