"""One writer at a time: ``writer.json`` names the run that may publish, and dies with it.

The file stays locked (``flock``) as long as its process lives, so a killed writer of this machine
is recognised at once. A writer of another machine, whose lock may not reach here, counts as dead
when its heartbeat is ten minutes old by the file system's own clock. Whoever publishes asks
``require_lease`` first: a run that lost its lease stops there.
"""

import os
import socket
import threading
import time
import uuid
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.storage import files
from pipeline.storage.folder import LocalFolder, StoreFolder
from pipeline.storage.lease_file import (
    LEASE_BYTES,
    LEASE_NAME,
    LeaseHolder,
    take_lease_file,
)
from pipeline.storage.object_folder import ObjectFolder
from store_schemas.errors import LeaseError, StoreError
from store_schemas.metadata import parse_json

__all__ = [
    "LEASE_NAME",
    "LeaseHolder",
    "WriterLease",
    "acquire_lease",
    "read_holder",
    "require_lease",
]

HEARTBEAT_SECONDS = 30
_ATTEMPTS = 100


class WriterLease:
    """The right to write one store; a context manager that gives it back.

    It belongs to the process that acquired it: a forked child neither holds the lock nor gives the
    lease back.
    """

    def __init__(
        self, folder: LocalFolder, holder: LeaseHolder, file: int, made: list[Path]
    ) -> None:
        """Use ``acquire_lease``."""
        self.run_id = holder.run_id
        self._folder = folder
        self._holder = holder
        self._file: int | None = file
        self._made = made
        self._is_over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        _held.add(self)
        self._heart.start()

    def release(self) -> None:
        """Give the lease back; folders that were made for it and are still empty disappear."""
        if self._file is None:
            return
        self._is_over.set()
        self._heart.join()
        # What ends a run must not be hidden by a disk that is full or gone.
        with suppress(OSError, StoreError):
            if read_holder(self._folder) == self.run_id:
                self._folder.remove(LEASE_NAME)
        self.forget()
        _remove_empty(self._made)

    def forget(self) -> None:
        """Close the file, and with it the lock, leaving it to others to see that."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._is_over.wait(HEARTBEAT_SECONDS):
            # One that fails is made up for by the next, or others may replace this run in time.
            with suppress(OSError):
                # Of the open file: whoever took over has put another one in its place.
                if self._file is not None:
                    alive = replace(self._holder, heartbeat=round(time.time()))
                    os.pwrite(self._file, alive.to_json(), 0)


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
        LeaseError: another run holds the lease; names it and says what to do.
        StoreError: the path is a file, or what is called ``writer.json`` there is no file.
        StorageError: the disk takes no file.
        ObjectStoreError: the object store does not answer, or refuses.
    """
    if isinstance(folder, ObjectFolder):
        from pipeline.storage.object_lease import acquire_object_lease  # which needs this one

        return acquire_object_lease(folder, take_over=take_over)
    if not isinstance(folder, LocalFolder):
        raise StoreError(f"{folder} cannot be locked")
    made: list[Path] = []
    with files.explained(folder.root / LEASE_NAME, LEASE_BYTES):
        try:
            return _keep_trying(folder, made, take_over)
        except (FileExistsError, NotADirectoryError):
            raise StoreError(
                f"{folder} must be a folder, but is a file; choose another path"
            ) from None
        except BaseException:
            _remove_empty(made)
            raise


def _keep_trying(folder: LocalFolder, made: list[Path], take_over: bool) -> WriterLease:
    """Acquire the lease, however often it changes hands meanwhile.

    made: Takes the folders that were made.
    """
    run_id, host = uuid.uuid4().hex, socket.gethostname()
    for attempt in range(_ATTEMPTS):
        try:
            made += files.make_folder(folder.root)
            holder = LeaseHolder(run_id, host, os.getpid(), round(time.time()))
            file = take_lease_file(folder.root, holder, take_over)
        except FileNotFoundError:  # whoever gave its lease back took the folder along
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            if file is not None:
                return WriterLease(folder, holder, file, made)
    raise LeaseError(f"{folder} changes hands all the time; run again when that is over")


def read_holder(folder: StoreFolder) -> str | None:
    """Return the run id of the writer that holds a store; None where there is none."""
    try:
        found = parse_json(folder.read(LEASE_NAME, LEASE_BYTES), LEASE_NAME)
    except (FileNotFoundError, StoreError):
        return None
    run_id = found.get("run_id")
    return run_id if isinstance(run_id, str) else None


def require_lease(folder: StoreFolder, run_id: str) -> None:
    """Refuse to go on for a run that does not hold the store any more.

    Raises:
        LeaseError: names the run that does.
    """
    found = read_holder(folder)
    if found != run_id:
        whose = "nobody" if found is None else f"run {found[:8]}"
        raise LeaseError(
            f"{folder} must be held by run {run_id[:8]} to be written, but {whose} holds it: "
            f"another writer took over; nothing more is published by this one"
        )


def _remove_empty(folders: list[Path]) -> None:
    for path in reversed(folders):
        with suppress(OSError):
            os.rmdir(path)
