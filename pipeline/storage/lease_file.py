"""The file ``writer.json``: who may write, and how it changes hands without ever being torn.

It is written and locked under a temporary name, and then linked or renamed into its place.
"""

import errno
import fcntl
import json
import os
import socket
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.storage import files
from store_schemas.errors import LeaseError, StoreError
from store_schemas.metadata import parse_json

LEASE_NAME = "writer.json"
LEASE_BYTES = 512
"""The file never changes its length, so a heartbeat cannot tear it."""
STALE_SECONDS = 600

_OPEN_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link is refused, and a pipe is opened without waiting; NFS locks what is open for writing."""
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
_NO_LINKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK}


@dataclass(frozen=True)
class LeaseHolder:
    """Who may write."""

    run_id: str
    host: str
    pid: int
    heartbeat: int
    """Seconds since 1970 by the holder's clock, when it last said that it lives."""

    def to_json(self) -> bytes:
        """Return the file, padded with spaces."""
        return json.dumps(asdict(self)).encode("ascii").ljust(LEASE_BYTES)

    def __str__(self) -> str:
        return f"run {self.run_id[:8]}, process {self.pid} on {self.host}"


def take_lease_file(folder: Path, holder: LeaseHolder, take_over: bool) -> int | None:
    """Put a file that is locked already in the place of the former one; None: try again."""
    path = folder / LEASE_NAME
    temporary = files.temporary_of(path)
    file = os.open(temporary, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
    is_ours = False
    try:
        _lock(file)
        os.pwrite(file, holder.to_json(), 0)
        os.fsync(file)
        now = os.fstat(file).st_mtime
        is_ours = _replace(temporary, path) if take_over else _follow(folder, temporary, now)
    finally:
        with suppress(OSError):
            os.unlink(temporary)
        if not is_ours:
            os.close(file)
    return file if is_ours else None


def _follow(folder: Path, temporary: Path, now: float) -> bool:
    """Become the holder where there is none or a dead one; False: it has just changed."""
    path = folder / LEASE_NAME
    try:
        former = os.open(path, _OPEN_FLAGS)
    except FileNotFoundError:
        return _appear(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise _no_file(path) from None
    try:
        if not stat.S_ISREG(os.fstat(former).st_mode):
            raise _no_file(path)
        is_free = _lock(former)
        if not _is_file(former, path):
            return False
        _require_dead(folder, former, is_free, now)
        return _replace(temporary, path)
    finally:
        os.close(former)


def _replace(temporary: Path, path: Path) -> bool:
    try:
        os.replace(temporary, path)
    except IsADirectoryError:
        raise _no_file(path) from None
    return True


def _no_file(path: Path) -> StoreError:
    return StoreError(f"{path} must be a regular file, but is none; remove it and run again")


def _appear(temporary: Path, path: Path) -> bool:
    """Give the file its name unless there is one of that name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Of two that rename at once the former finds at its first ``require_lease`` that it lost.
        os.replace(temporary, path)
    return True


def _lock(file: int) -> bool | None:
    """Lock a file and say whether it was free; None where the file system knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def _require_dead(folder: Path, file: int, is_free: bool | None, now: float) -> None:
    """Refuse unless the former holder is dead.

    now: By the clock that times the folder's files; machines may differ in theirs.
    """
    holder = _holder_of(file)
    age = now - os.fstat(file).st_mtime
    is_stale = age >= STALE_SECONDS
    if holder is None:
        is_dead = is_stale and is_free is not False
    elif holder.host != socket.gethostname():
        # A lock that is not seen here says nothing, and one that is seen may be left over.
        is_dead = is_stale
    elif is_free is None:
        is_dead = is_stale or not is_process(holder.pid)
    else:
        is_dead = is_free
    if is_dead:
        return
    who = holder or f"a writer that {LEASE_NAME} does not name"
    raise LeaseError(
        f"{folder} is being written by {who}, alive {max(0, round(age))} s ago; wait for it, or "
        f"replace it with --take-over"
    )


def _holder_of(file: int) -> LeaseHolder | None:
    try:
        return parse_holder(os.pread(file, LEASE_BYTES, 0))
    except OSError:  # a pipe
        return None


def parse_holder(data: bytes) -> LeaseHolder | None:
    """Return who a lease file says may write; None: it does not say."""
    try:
        holder = LeaseHolder(**parse_json(data, LEASE_NAME))
    except (StoreError, TypeError):  # a torn file, another version's
        return None
    values = (holder.run_id, holder.host, holder.pid, holder.heartbeat)
    return holder if [type(value) for value in values] == [str, str, int, int] else None


def is_process(pid: int) -> bool:
    """Say whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
