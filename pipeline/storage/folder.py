"""Folders of stores: every byte of a store is read and written by its name below the root.

Names use forward slashes. ``storage.files`` makes local files durable; ``storage.object_folder``
holds the folders in object stores.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Protocol, Self

from pydantic import BeforeValidator

from pipeline.storage import files
from pipeline.storage.object_client import is_object_location
from pipeline.storage.object_folder import ObjectFolder
from store_schemas.errors import CorruptError, StoreError

StoreLocation = Annotated[
    str, BeforeValidator(lambda given: str(given) if isinstance(given, Path) else given)
]
"""Where a store is, in a setting: a path, or a URL, which a ``Path`` would lose slashes of."""


_CLAIM_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link is refused, a pipe is opened without waiting, and NFS locks only what can be written."""
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
_NO_LINKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK}

RequireDead = Callable[[bytes, bool | None, float], None]


class Claim(Protocol):
    """An object that this process wrote, and may rewrite until another process replaces it."""

    def rewrite(self, data: bytes, is_ours: Callable[[], bool]) -> "Claim | None":
        """Write the object again and return the new claim; None if another process replaced it.

        Args:
            data: As long as before.
            is_ours: Reads the object and tells whether this process wrote it; called where the
                answer to an earlier write was lost.
        """
        ...

    def close(self) -> None:
        """Unlock the object; it stays, but folders that were made for it vanish if empty."""


class StoreFolder(Protocol):
    """A folder of whole objects; picklable, and the same one in every process."""

    is_remote: bool
    """Whether every object costs a request over the network; a forked process cannot read then."""
    has_files: bool
    """Whether its objects are files of this machine; else opening one takes it into memory."""
    max_open_files: int
    """Descriptors that whoever reads an array may keep open, one of each shard."""

    def __str__(self) -> str:
        """Return where it is, for messages."""
        ...

    def publish(self, name: str, data: bytes) -> None:
        """Write an object whole and durably; replaces an older one.

        Raises:
            StorageError: the disk does not take it.
        """

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return an object's bytes.

        Raises:
            FileNotFoundError: there is none.
            CorruptError: it is longer than it may be, or no plain object.
        """
        ...

    def size(self, name: str) -> int | None:
        """Return an object's length, None where there is none."""
        ...

    def sha256(self, name: str) -> str:
        """Return an object's sha256 in hexadecimal, or raise FileNotFoundError."""
        ...

    def open_descriptor(self, name: str) -> int:
        """Open an object for ``pread``, as ``read`` would; the caller closes it."""
        ...

    def names(self) -> list[str]:
        """Return every object below the root, sorted; litter of killed writers is left out."""
        ...

    def num_bytes(self) -> int:
        """Return the length of all objects together."""
        ...

    def remove(self, *names: str) -> None:
        """Delete objects durably; one that is not there is no error."""

    def sweep(self) -> None:
        """Delete what killed writers left unfinished, and make durable what they finished.

        Only while no other process writes there.
        """

    def claim(self, name: str, data: bytes, require_dead: RequireDead | None) -> Claim | None:
        """Write an object unless another process claims it; of several at once only one does.

        Args:
            require_dead: Raises an error to keep a former object, given its first bytes, whether
                its lock is free (None: there are no locks) and its age in seconds by the clock of
                the folder. None: replace the former object, whatever it is.

        Returns:
            None if the object changed meanwhile: try again. Where the answer of an object store
            was lost the claim may be another's: compare what is there.

        Raises:
            FileNotFoundError: the former object or its folder was removed meanwhile: try again.
            StoreError: the object is not a plain one, or the folder cannot be written.
            OSError: the disk cannot write it.
        """
        ...


class LocalFolder:
    """A folder of this machine's file systems."""

    is_remote = False
    has_files = True
    max_open_files = 100

    def __init__(self, root: Path) -> None:
        self.root = root
        # Strings: pathlib would intern every part of a path, and a training opens a file for ever.
        self._prefix = str(root)
        self._plain_folders = {""}
        self._made: list[Path] = []
        """Folders that were made for a claim."""

    def __str__(self) -> str:
        return str(self.root)

    def publish(self, name: str, data: bytes) -> None:
        path = Path(self._path(name))
        with files.explained(path, len(data)):
            files.publish(path, data)

    def read(self, name: str, max_bytes: int) -> bytes:
        return files.read_file(self._path(name), max_bytes)

    def size(self, name: str) -> int | None:
        return files.file_size(self._path(name))

    def sha256(self, name: str) -> str:
        return files.file_sha256(self._path(name))

    def open_descriptor(self, name: str) -> int:
        return files.open_regular(self._path(name))

    def names(self) -> list[str]:
        if self.root.exists() and not self.root.is_dir():
            raise self._not_a_folder()
        found = [p for p in files.walk_files(self.root) if not files.is_temporary(p)]
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def num_bytes(self) -> int:
        return sum(self.size(name) or 0 for name in self.names())

    def remove(self, *names: str) -> None:
        paths = [Path(self._path(name)) for name in names]
        with files.explained(self.root):
            files.remove(*paths)

    def sweep(self) -> None:
        with files.explained(self.root):
            files.sweep_temporaries(self.root)
            files.make_durable(self.root)

    def claim(
        self, name: str, data: bytes, require_dead: RequireDead | None
    ) -> "LockedFile | None":
        path = Path(self._path(name))
        try:
            self._made += files.make_folder(path.parent)
            descriptor = _put_locked(path, data, require_dead)
        except (FileExistsError, NotADirectoryError):
            raise self._not_a_folder() from None
        except BaseException:
            files.remove_empty(self._made)
            raise
        return None if descriptor is None else LockedFile(path, descriptor, self._made)

    def _not_a_folder(self) -> StoreError:
        return StoreError(f"{self} must be a folder, but is a file; choose another path")

    def _path(self, name: str) -> str:
        """Return a path none of whose folders below the root is a link out of the store."""
        folder = name.rpartition("/")[0]
        if folder not in self._plain_folders:
            parts = folder.split("/")
            for depth in range(len(parts), 0, -1):
                path = "/".join((self._prefix, *parts[:depth]))
                if os.path.islink(path):
                    raise CorruptError(f"{path} must be a folder; a store holds no links")
            self._plain_folders.add(folder)
        return f"{self._prefix}/{name}"


class LockedFile:
    """A claimed local file, locked until its process ends, closes it or is killed."""

    def __init__(self, path: Path, descriptor: int, made: list[Path]) -> None:
        self._path = path
        self._descriptor = descriptor
        self._made = made

    def rewrite(self, data: bytes, is_ours: Callable[[], bool]) -> Self | None:
        # Rewritten in place: whoever took over has put another file there.
        os.pwrite(self._descriptor, data, 0)
        return self if _is_at(self._descriptor, self._path) else None

    def close(self) -> None:
        os.close(self._descriptor)
        files.remove_empty(self._made)


def _put_locked(path: Path, data: bytes, require_dead: RequireDead | None) -> int | None:
    """Put a file that is locked already in the place of the former one; None: that has changed.

    It is written and locked under a temporary name, and then linked or renamed: nobody sees it torn
    or unlocked.
    """
    temporary = files.temporary_of(path)
    descriptor = os.open(temporary, _CLAIM_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
    is_put = False
    try:
        _lock(descriptor)
        os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)
        if require_dead is None:
            is_put = _replace(temporary, path)
        else:
            now = os.fstat(descriptor).st_mtime
            is_put = _follow(temporary, path, len(data), now, require_dead)
    finally:
        with suppress(OSError):
            os.unlink(temporary)
        if not is_put:
            os.close(descriptor)
    return descriptor if is_put else None


def _follow(
    temporary: Path, path: Path, length: int, now: float, require_dead: RequireDead
) -> bool:
    """Rename a file where there is none, or one that may be replaced; False: that has changed.

    now: By the clock that times the folder's files; machines may differ in theirs.
    """
    try:
        former = os.open(path, _CLAIM_FLAGS)
    except FileNotFoundError:
        return _appear(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise _not_a_file(path) from None
    try:
        if not stat.S_ISREG(os.fstat(former).st_mode):
            raise _not_a_file(path)
        is_free = _lock(former)
        if not _is_at(former, path):
            return False
        require_dead(os.pread(former, length, 0), is_free, now - os.fstat(former).st_mtime)
        return _replace(temporary, path)  # while the former file is locked
    finally:
        os.close(former)


def _appear(temporary: Path, path: Path) -> bool:
    """Give a file its name unless another file has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Of two that rename at once the later one stays.
        os.replace(temporary, path)
    return True


def _replace(temporary: Path, path: Path) -> bool:
    try:
        os.replace(temporary, path)
    except IsADirectoryError:
        raise _not_a_file(path) from None
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
    """Return whether an open file still has its name."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def open_folder(location: str | Path | StoreFolder) -> StoreFolder:
    """Return the folder at a path, or at the ``s3://``, ``gs://`` or ``az://`` URL of a prefix.

    Raises:
        StoreError: a chained or unknown kind of URL, or object stores cannot be opened here.
    """
    if not isinstance(location, str | Path):
        return location
    if is_object_location(location) and "::" not in str(location):
        return ObjectFolder(str(location))
    if "::" in str(location) or "://" in str(location):
        raise StoreError(
            f"{location} must be the path of a folder or s3://BUCKET/NAME; chained URLs and URLs "
            "of other kinds are not opened"
        )
    return LocalFolder(Path(location))


def absolute_location(location: str) -> str:
    """Return where a store is, as every process of this machine would name it."""
    return location if is_object_location(location) else str(Path(location).absolute())
