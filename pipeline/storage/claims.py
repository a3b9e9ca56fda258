"""Claims of files: a local file that is locked by the one process that may rewrite it.

The file is written and locked under a temporary name, and then linked or renamed into its place,
so that no other process ever sees it torn or unlocked. ``StoreFolder.claim`` is the same operation
for every kind of folder.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

from pipeline.storage import files
from store_schemas.errors import StoreError

RequireDead = Callable[[bytes, bool | None, float], None]
"""Raises an error if the claim of a former object must be respected.

Its arguments are the object's first bytes, whether its lock is free (None: there are no locks) and
its age in seconds by the clock of the folder.
"""

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link is refused, a pipe is opened without waiting, and NFS locks only what can be written."""
_NOT_A_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO}
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
_NO_LINKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK}


class Claim(Protocol):
    """An object that this process wrote, and may rewrite until another process replaces it."""

    def rewrite(self, data: bytes, is_ours: Callable[[], bool]) -> "Claim | None":
        """Write the object again and return the new claim; None if another process replaced it.

        Args:
            data: New content, as long as the former one.
            is_ours: Reads the object and returns whether this process wrote it; called where the
                answer to an earlier write was lost.
        """
        ...

    def close(self) -> None:
        """Unlock the object; it stays, but folders that were made for it are removed if empty."""


class LockedFile:
    """A claimed local file, locked until its process closes it or ends."""

    def __init__(self, path: Path, descriptor: int, made: list[Path]) -> None:
        self._path = path
        self._descriptor = descriptor
        self._made = made

    def rewrite(self, data: bytes, is_ours: Callable[[], bool]) -> Self | None:
        # Through the descriptor: whoever took over has put another file at the path.
        os.pwrite(self._descriptor, data, 0)
        return self if _is_at(self._descriptor, self._path) else None

    def close(self) -> None:
        os.close(self._descriptor)
        files.remove_empty(self._made)


def claim_file(path: Path, data: bytes, require_dead: RequireDead | None) -> int | None:
    """Put a locked file in its place and return its descriptor; arguments as ``StoreFolder.claim``.

    Returns:
        None if the former file changed meanwhile.
    """
    temporary = files.temporary_of(path)
    descriptor = os.open(temporary, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
    is_placed = False
    try:
        _lock(descriptor)
        os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)
        if require_dead is None:
            os.replace(temporary, path)
            is_placed = True
        else:
            # Machines may differ in their clocks; this is the one that times the former file.
            now = os.fstat(descriptor).st_mtime
            is_placed = _place(temporary, path, len(data), now, require_dead)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            raise _not_a_file(path) from None
        raise
    finally:
        with suppress(OSError):
            os.unlink(temporary)
        if not is_placed:
            os.close(descriptor)
    return descriptor if is_placed else None


def _place(
    temporary: Path, path: Path, num_bytes: int, now: float, require_dead: RequireDead
) -> bool:
    """Rename a file to a free name, or over a dead claim; False: the former file has changed."""
    try:
        former = os.open(path, _FLAGS)
    except FileNotFoundError:
        return _link(temporary, path)
    try:
        if not stat.S_ISREG(os.fstat(former).st_mode):
            raise _not_a_file(path)
        is_free = _lock(former)
        if not _is_at(former, path):
            return False
        require_dead(os.pread(former, num_bytes, 0), is_free, now - os.fstat(former).st_mtime)
        os.replace(temporary, path)  # while the former file is locked
        return True
    finally:
        os.close(former)


def _link(temporary: Path, path: Path) -> bool:
    """Give a file its name; False: another file has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Of two processes that rename at once the later one holds the claim.
        os.replace(temporary, path)
    return True


def _not_a_file(path: Path) -> StoreError:
    return StoreError(f"{path} must be a regular file, but is none; remove it and run again")


def _lock(descriptor: int) -> bool | None:
    """Lock a file and return whether it was free; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether a path still names an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
