"""The one way in which bytes of a teacher store reach and leave a local folder.

A file appears whole or not at all, and is durable before anything that speaks of it: temporary
file in the same folder, fsync, rename, fsync of the folder. A kill leaves at most a temporary file.
"""

import hashlib
import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path

from store_schemas.errors import CorruptError

TEMPORARY_SUFFIX = ".distil-temporary"

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link is refused, and a pipe is opened without waiting for its writer (then refused)."""


def publish(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole and survives a power cut; replaces an older one."""
    make_folder(path.parent)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
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


def make_folder(path: Path) -> None:
    """Create a folder and its parents durably; one that is there is no error."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    _sync_folder(path.parent)


def sweep_temporaries(root: Path) -> list[Path]:
    """Delete what killed writers left below a folder, and return it.

    Only while no other process writes there: its unfinished files look the same.
    """
    swept = [path for path in walk_files(root) if is_temporary(path)]
    remove(*swept)
    return swept


def is_temporary(path: Path) -> bool:
    """Say whether a file is one that ``publish`` has not renamed yet."""
    return path.name.endswith(TEMPORARY_SUFFIX)


def walk_files(root: Path) -> list[Path]:
    """Return everything below a folder that is no folder, in the order of the paths."""
    found = []
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [Path(folder, name) for name in [*files, *links]]
    return sorted(found)


def open_regular(path: Path) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises:
        FileNotFoundError: there is none.
        CorruptError: it is a link, a folder, a pipe or a device.
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


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return a regular file's bytes, refusing a longer one before anything is allocated.

    Raises:
        FileNotFoundError: there is none.
        CorruptError: it is no regular file, or longer than it may be.
    """
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if size > max_bytes:
            raise CorruptError(f"{path} must have at most {max_bytes} bytes, got {size}")
        return file.read(size)


def file_size(path: Path) -> int | None:
    """Return the length of a regular file, None where there is none."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def file_sha256(path: Path) -> str:
    """Return the sha256 of a regular file, in hexadecimal."""
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
