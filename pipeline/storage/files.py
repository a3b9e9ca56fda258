"""Local files that appear whole and durably, are read only if regular, or claimed by a process.

A file is published as a temporary file in the same folder, fsync, rename, fsync of the folder: it
appears whole or not at all, and is durable before any file that refers to it. A killed process
leaves at most a temporary file behind.

A claimed file is locked by the one process that may rewrite it. It is written and locked under a
temporary name, and then linked or renamed into its place, so that no other process ever sees it
torn or unlocked. ``StoreFolder.claim`` is the same operation for every kind of folder.
"""

import errno
import fcntl
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, Self

from store_schemas.errors import CorruptError, StorageError, StoreError

TEMPORARY_SUFFIX = ".distil-temporary"

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link is refused, and a pipe is opened without waiting for its writer (then refused)."""
_CLAIM_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link is refused, a pipe is opened without waiting, and NFS locks only what can be written."""
_NOT_A_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO}
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
_NO_LINKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK}

RequireDead = Callable[[bytes, bool | None, float], None]
"""Raises an error if the claim of a former object must be respected.

Its arguments are the object's first bytes, whether its lock is free (None: there are no locks) and
its age in seconds by the clock of the folder.
"""


def publish(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole and survives a power cut; replaces a former file."""
    make_folder(path.parent)
    temporary = temporary_of(path)
    try:
        _write(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def remove(*paths: Path) -> None:
    """Delete files durably; one that is not there is no error."""
    folders = set()
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
            folders.add(path.parent)
    for folder in sorted(folders):
        _sync_folder(folder)


def make_folder(path: Path) -> list[Path]:
    """Create a folder and its parents durably, and return those that did not exist.

    Raises:
        FileExistsError: the path exists and is not a folder.
    """
    if path.is_dir():
        return []
    made = make_folder(path.parent)
    try:
        os.mkdir(path)
        made.append(path)
    except FileExistsError:
        if not path.is_dir():
            raise
    _sync_folder(path.parent)
    return made


def remove_empty(folders: list[Path]) -> None:
    """Remove the empty ones of the folders, last first, and empty the list."""
    while folders:
        with suppress(OSError):
            os.rmdir(folders.pop())


def make_durable(root: Path) -> None:
    """Sync all folders below a root, which a killed writer may not have done.

    Every file name seen below the root afterwards is durable.
    """
    if root.is_dir():
        for folder, _, _ in os.walk(root):
            _sync_folder(Path(folder))
        _sync_folder(root.absolute().parent)


@contextmanager
def explained(path: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Turn a system's error into one line, with the bytes that were needed and that are free.

    Args:
        path: The file or folder that the block writes.
        num_bytes: Bytes that it writes, if known.

    Raises:
        StorageError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        needed = "" if num_bytes is None else f" {num_bytes} bytes were needed,"
        free = ""
        with suppress(OSError):
            place = next(p for p in (path, *path.absolute().parents) if p.exists())
            system = os.statvfs(place)
            free = f" {system.f_bavail * system.f_frsize} are free"
        more = f" ({f'{needed}{free}'.strip().rstrip(',')})" if needed or free else ""
        why = error.strerror or str(error)
        raise StorageError(f"{path} cannot be written: {why}{more}") from error


def sweep_temporaries(root: Path) -> list[Path]:
    """Delete the temporary files of killed writers below a folder, and return their paths.

    Call it only while no other process writes there, whose temporary files look the same.
    """
    swept = [path for path in walk_files(root) if is_temporary(path)]
    remove(*swept)
    return swept


def temporary_of(path: Path) -> Path:
    """Return a new temporary path in the folder of a file."""
    return path.parent / f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"


def is_temporary(path: Path) -> bool:
    """Return whether a path is one of ``temporary_of``."""
    return path.name.endswith(TEMPORARY_SUFFIX)


def walk_files(root: Path) -> list[Path]:
    """Return the sorted paths of everything below a folder but folders; links are not followed."""
    found = []
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [Path(folder, name) for name in [*files, *links]]
    return sorted(found)


def open_regular(path: str | Path) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises:
        FileNotFoundError: there is no file.
        CorruptError: the path is a link, a folder, a pipe or a device.
    """
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptError(f"{path} must be a readable regular file: {error.strerror}") from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise CorruptError(f"{path} must be a regular file; a store holds nothing else")


def read_file(path: str | Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file; a longer file is refused before memory is allocated.

    Raises:
        FileNotFoundError: there is no file.
        CorruptError: it is not a regular file, too long, or the disk cannot read it.
    """
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file, _readable(path):
        size = os.fstat(descriptor).st_size
        if size > max_bytes:
            raise CorruptError(f"{path} must have at most {max_bytes} bytes, got {size}")
        return file.read(size)


def file_size(path: str | Path) -> int | None:
    """Return the length of a regular file in bytes, None where there is none."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a regular file, in hexadecimal.

    Raises:
        FileNotFoundError: there is no file.
        CorruptError: it is not a regular file, or the disk cannot read it.
    """
    with os.fdopen(open_regular(path), "rb") as file, _readable(path):
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CorruptError(f"{path} cannot be read: {error.strerror}") from error


def write_all(descriptor: int, data: memoryview) -> None:
    """Write all bytes to an open file, in as many calls as the system needs."""
    while data:
        data = data[os.write(descriptor, data) :]


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        write_all(descriptor, memoryview(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Claim(Protocol):
    """An object that this process wrote, and may rewrite until another process replaces it."""

    def rewrite(self, data: bytes, is_ours: Callable[[], bool]) -> "Claim | None":
        """Write the object again and return the new claim; None if another process replaced it.

        Args:
            data: New content, as long as the former one.
            is_ours: Reads the object and returns whether this process wrote it; called where the
                answer to an earlier write was lost.
        """

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
        remove_empty(self._made)


def claim_file(path: Path, data: bytes, require_dead: RequireDead | None) -> int | None:
    """Put a locked file in its place and return its descriptor; arguments as ``StoreFolder.claim``.

    Returns:
        None if the former file changed meanwhile.
    """
    temporary = temporary_of(path)
    descriptor = os.open(temporary, _CLAIM_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
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
        former = os.open(path, _CLAIM_FLAGS)
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
