"""One writer at a time: ``writer.json`` names the run that may publish, and no other run may.

The file is claimed through the folder (``StoreFolder.claim``): a local file stays locked as long
as its process lives, so a killed writer of this machine is recognised at once; an object store has
no locks, so the process of a writer on this machine is looked up. A writer on another machine,
whose lock may not reach here, counts as dead when its last heartbeat is ten minutes old by the
folder's own clock. ``require_lease`` comes before every publication: a run that lost its lease
stops there.
"""

import json
import os
import socket
import threading
import time
import uuid
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Self

from pipeline.errors import ObjectStoreError
from pipeline.storage import files
from pipeline.storage.files import Claim
from pipeline.storage.folder import StoreFolder
from store_schemas.errors import LeaseError, StoreError
from store_schemas.metadata import parse_json

LEASE_NAME = "writer.json"
LEASE_BYTES = 512
"""Constant length of the file, so that a heartbeat, which rewrites it, cannot tear it."""
HEARTBEAT_SECONDS = 30
STALE_SECONDS = 600
_ATTEMPTS = 100


@dataclass(frozen=True)
class LeaseHolder:
    """The run that may write, as ``writer.json`` names it."""

    run_id: str
    host: str
    pid: int
    heartbeat: int
    """Time of the last heartbeat by the holder's own clock, in seconds since 1970."""

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """Return the holder that a file names; None for a torn file or another format."""
        try:
            holder = cls(**parse_json(data, LEASE_NAME))
        except (StoreError, TypeError):
            return None
        values = (holder.run_id, holder.host, holder.pid, holder.heartbeat)
        return holder if [type(value) for value in values] == [str, str, int, int] else None

    def to_json(self) -> bytes:
        """Return the content of the file, padded with spaces to ``LEASE_BYTES``."""
        return json.dumps(asdict(self)).encode("ascii").ljust(LEASE_BYTES)

    def __str__(self) -> str:
        return f"run {self.run_id[:8]}, process {self.pid} on {self.host}"


class WriterLease:
    """The right to write one store; a context manager that gives it back.

    It belongs to the process that acquired it: a forked child neither holds the lock nor gives the
    lease back.
    """

    def __init__(self, folder: StoreFolder, holder: LeaseHolder, claim: Claim) -> None:
        """Use ``acquire_lease``."""
        self.run_id = holder.run_id
        self._folder = folder
        self._holder = holder
        self._claim: Claim | None = claim
        self._is_over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        _held.add(self)
        self._heart.start()

    def release(self) -> None:
        """Give the lease back unless another run took over; folders made for it vanish if empty."""
        if self._claim is None:
            return
        self._is_over.set()
        self._heart.join()
        # A full disk or a server that is gone must not hide the error that ended the run.
        with suppress(OSError, StoreError, ObjectStoreError):
            if self._is_held():
                self._folder.remove(LEASE_NAME)
        self.forget()

    def forget(self) -> None:
        """Give up the claim and its lock, but keep the file, as a killed process does."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_held(self) -> bool:
        return read_holder(self._folder) == self.run_id

    def _beat(self) -> None:
        claim = self._claim
        while claim is not None and not self._is_over.wait(HEARTBEAT_SECONDS):
            alive = replace(self._holder, heartbeat=round(time.time()))
            # The next heartbeat makes up for one that fails.
            with suppress(OSError, ObjectStoreError):
                claim = claim.rewrite(alive.to_json(), self._is_held)
                self._claim = claim or self._claim


_held: weakref.WeakSet[WriterLease] = weakref.WeakSet()


def _forget_in_child() -> None:
    # A forked worker that outlives its killed parent must not keep the store locked.
    for lease in list(_held):
        lease.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def acquire_lease(folder: StoreFolder, *, take_over: bool = False) -> WriterLease:
    """Become the one writer of a store.

    Args:
        take_over: Replace a holder that still seems alive; it stops before it publishes again.

    Raises:
        LeaseError: another run holds the lease; the message names it and the remedy.
        StoreError: the path is a file, ``writer.json`` is not a regular file, or the folder
            cannot be written.
        StorageError: the disk cannot write the file.
        ObjectStoreError: the object store does not answer, or refuses.
    """
    host = this_machine() if folder.is_remote else socket.gethostname()

    def require_dead(data: bytes, is_free: bool | None, age: float) -> None:
        former = LeaseHolder.parse(data)
        if not _is_dead(former, host, is_free, is_stale=age >= STALE_SECONDS):
            raise LeaseError(
                f"{folder} is being written by "
                f"{former or f'a writer that {LEASE_NAME} does not name'}, "
                f"alive {max(0, round(age))} s ago; wait for it, or replace it with --take-over"
            )

    run_id = uuid.uuid4().hex
    with files.explained(Path(str(folder), LEASE_NAME), LEASE_BYTES):
        for attempts_left in reversed(range(_ATTEMPTS)):
            holder = LeaseHolder(run_id, host, os.getpid(), round(time.time()))
            try:
                claim = folder.claim(
                    LEASE_NAME, holder.to_json(), None if take_over else require_dead
                )
            except FileNotFoundError:  # a holder gave its lease back, and removed the folder
                if not attempts_left:
                    raise
                continue
            if claim is not None:
                # Some file systems and object stores let several claims succeed; the last holds.
                if read_holder(folder) == run_id:
                    return WriterLease(folder, holder, claim)
                claim.close()
    raise LeaseError(
        f"{folder} is claimed by one run after another; wait for the other runs, and run again"
    )


def _is_dead(
    former: LeaseHolder | None, host: str, is_free: bool | None, *, is_stale: bool
) -> bool:
    """Return whether the former holder is dead.

    is_free: Whether nobody holds the file's lock; None where there are no locks.
    """
    if former is None:
        return is_stale and is_free is not False
    if former.host != host:
        # A lock that is not seen here proves nothing, and one that is seen may be left over.
        return is_stale
    if is_free is None:
        return is_stale or not _is_process(former.pid)
    return is_free


def _is_process(pid: int) -> bool:
    """Return whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@cache
def this_machine() -> str:
    """Return a name that no other running machine has, even one of the same host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:  # no Linux
        boot = f"{uuid.getnode():012x}"
    return f"{socket.gethostname()}-{boot}"


def read_lease(folder: StoreFolder) -> LeaseHolder | None:
    """Return the holder that ``writer.json`` names, dead or alive; None where it names none."""
    try:
        return LeaseHolder.parse(folder.read(LEASE_NAME, LEASE_BYTES))
    except (FileNotFoundError, StoreError):
        return None


def read_holder(folder: StoreFolder) -> str | None:
    """Return the id of the run that holds a store; None where there is none."""
    lease = read_lease(folder)
    return None if lease is None else lease.run_id


def require_lease(folder: StoreFolder, run_id: str) -> None:
    """Refuse to continue a run that no longer holds the store.

    Raises:
        LeaseError: another run, or none, holds it.
    """
    found = read_holder(folder)
    if found != run_id:
        whose = "nobody" if found is None else f"run {found[:8]}"
        raise LeaseError(
            f"{folder} must be held by run {run_id[:8]} to be written, but {whose} holds it: "
            f"another writer took over; nothing more is published by this one"
        )
