"""Where a store lies: the one door through which its bytes pass, by their name below the root.

Names use forward slashes. Everything that makes publishing durable lives in ``storage.files``; what
lies in object stores passes through ``storage.object_folder``.
"""

import os
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BeforeValidator

from pipeline.storage import files
from pipeline.storage.object_client import is_object_location
from pipeline.storage.object_folder import ObjectFolder
from store_schemas.errors import CorruptError, StoreError

StoreLocation = Annotated[
    str, BeforeValidator(lambda given: str(given) if isinstance(given, Path) else given)
]
"""Where a store is, in a setting: a path, or a URL, which a ``Path`` would lose slashes of."""


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
            raise StoreError(f"{self} must be a folder, but is a file; choose another path")
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
