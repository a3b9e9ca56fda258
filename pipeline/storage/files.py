"""Local files that appear whole and durably, and are read only if they are regular files.

A file is published as a temporary file in the same folder, fsync, rename, fsync of the folder: it
appears whole or not at all, and is durable before any file that refers to it. A killed process
leaves at most a temporary file behind.
"""

import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from store_schemas.errors import CorruptError, StorageError

TEMPORARY_SUFFIX = ".distil-temporary"

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link is refused, and a pipe is opened without waiting for its writer (then refused)."""


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


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
