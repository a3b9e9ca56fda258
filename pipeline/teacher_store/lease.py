"""One writer at a time: ``writer.json`` names the run that may publish, and dies with it.

The file is created exclusively and stays locked (``flock``) as long as its process lives, so a
killed writer of this machine is recognised at once. A writer of another machine, whose lock may
not reach here, counts as dead when its heartbeat is older than ten minutes. Whoever publishes asks
``require_lease`` first: a run that lost its lease stops there.
"""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pipeline import file_layer
from pipeline.teacher_store.folder import LocalFolder, StoreFolder
from store_schemas.errors import LeaseError, StoreError
from store_schemas.metadata import parse_json

LEASE_NAME = "writer.json"
STALE_SECONDS = 600
HEARTBEAT_SECONDS = 30
_BYTES = 512
"""The file never changes its length, so a heartbeat cannot tear it."""


@dataclass(frozen=True)
class LeaseHolder:
    """Who may write."""

    run_id: str
    host: str
    pid: int
    heartbeat: int
    """Seconds since 1970, when the holder last said that it lives."""

    def to_json(self) -> bytes:
        """Return the file, padded with spaces."""
        text = json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__})
        return text.encode("ascii").ljust(_BYTES)

    def __str__(self) -> str:
        age = max(0, round(time.time()) - self.heartbeat)
        return f"run {self.run_id[:8]}, process {self.pid} on {self.host}, alive {age} s ago"


class WriterLease:
    """The right to write one store; a context manager that gives it back."""

    def __init__(self, folder: LocalFolder, holder: LeaseHolder, file: int) -> None:
        """Use ``acquire_lease``."""
        self.run_id = holder.run_id
        self._folder = folder
        self._holder = holder
        self._file = file
        self._is_over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Give the lease back; a folder that is still empty disappears."""
        self._is_over.set()
        self._heart.join()
        if read_holder(self._folder) == self._holder.run_id:
            self._folder.remove(LEASE_NAME)
        os.close(self._file)
        with suppress(OSError):
            os.rmdir(self._folder.root)

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
            # of the open file: whoever took over has put another one in its place
            os.pwrite(self._file, _alive(self._holder).to_json(), 0)


def acquire_lease(folder: StoreFolder, *, take_over: bool = False) -> WriterLease:
    """Become the one writer of a store.

    Args:
        take_over: Replace a holder that still seems alive; it stops before it publishes again.

    Raises:
        LeaseError: another run holds the lease; names it and says what to do.
        StoreError: the path is a file.
    """
    if not isinstance(folder, LocalFolder):
        raise StoreError(f"{folder} cannot be locked")
    try:
        file_layer.make_folder(folder.root)
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"{folder} must be a folder, but is a file; choose another path") from None
    holder = LeaseHolder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), round(time.time()))
    file = _lock(folder, take_over)
    os.pwrite(file, holder.to_json(), 0)
    os.ftruncate(file, _BYTES)
    os.fsync(file)
    return WriterLease(folder, holder, file)


def read_holder(folder: StoreFolder) -> str | None:
    """Return the run id of the writer that holds a store; None where there is none."""
    try:
        found = parse_json(folder.read(LEASE_NAME, _BYTES), LEASE_NAME)
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


def _lock(folder: LocalFolder, take_over: bool) -> int:
    """Return the lease's file, locked and nobody else's."""
    path = folder.root / LEASE_NAME
    while True:
        if take_over:
            folder.remove(LEASE_NAME)  # its holder keeps a file that nobody reads any more
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        is_new = False
        try:
            file = os.open(path, flags | os.O_EXCL, 0o666)
            is_new = True
        except FileExistsError:
            file = os.open(path, flags, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_file(file, path):  # given back or taken over meanwhile
                os.close(file)
                continue
            if not is_new:
                _require_dead(folder, os.pread(file, _BYTES, 0), os.fstat(file).st_mtime)
        except BlockingIOError:
            text = os.pread(file, _BYTES, 0)
            os.close(file)
            raise LeaseError(_refusal(folder, _holder_of(text))) from None
        except BaseException:
            os.close(file)
            raise
        return file


def _require_dead(folder: LocalFolder, text: bytes, changed: float) -> None:
    """Refuse unless the former holder is dead, its lock being free as far as is seen here."""
    holder = _holder_of(text)
    if holder is not None and holder.host == socket.gethostname():
        return
    last_seen = changed if holder is None else max(changed, holder.heartbeat)
    if text.strip() and time.time() - last_seen < STALE_SECONDS:
        raise LeaseError(_refusal(folder, holder))


def _refusal(folder: LocalFolder, holder: LeaseHolder | None) -> str:
    return (
        f"{folder} is being written by {holder or 'a writer that has not said who it is'}; wait "
        f"for it, or replace it with --take-over"
    )


def _holder_of(text: bytes) -> LeaseHolder | None:
    try:
        found: dict[str, Any] = parse_json(text, LEASE_NAME)
        holder = LeaseHolder(**found)
    except (StoreError, TypeError):
        return None
    values = (holder.run_id, holder.host, holder.pid, holder.heartbeat)
    return holder if [type(value) for value in values] == [str, str, int, int] else None


def _alive(holder: LeaseHolder) -> LeaseHolder:
    return LeaseHolder(holder.run_id, holder.host, holder.pid, round(time.time()))


def _is_file(descriptor: int, path: os.PathLike[str]) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
