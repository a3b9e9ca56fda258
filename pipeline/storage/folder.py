"""Folders of stores: every byte of a store is read and written by its name below the root.

Names use forward slashes. ``storage.files`` makes local files durable; ``storage.object_folder``
holds the folders in object stores.
"""

import os
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BeforeValidator

from pipeline.storage import files
from pipeline.storage.files import Claim, LockedFile, RequireDead, claim_file
from pipeline.storage.object_client import is_object_location
from pipeline.storage.object_folder import ObjectFolder
from store_schemas.errors import CorruptError, StoreError

StoreLocation = Annotated[
    str, BeforeValidator(lambda given: str(given) if isinstance(given, Path) else given)
]
"""Location of a store in a setting: a path or a URL; a ``Path`` would merge slashes of a URL."""


class StoreFolder(Protocol):
    """A folder of whole objects; pickled, it is the same folder in every process."""

    is_remote: bool
    """Whether reading an object is a request over the network; a forked process then cannot."""
    has_files: bool
    """Whether objects are files of this machine; else opening one reads it into memory."""
    max_open_files: int
    """Number of descriptors that a reader of an array may keep open, one of each shard."""

    def __str__(self) -> str:
        """Return the location, for messages."""

    def publish(self, name: str, data: bytes) -> None:
        """Write an object whole and durably; replaces a former object.

        Raises:
            StorageError: the disk cannot write it.
        """

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the bytes of an object.

        Raises:
            FileNotFoundError: there is no object.
            CorruptError: it is longer than ``max_bytes``, or not a regular file.
        """

    def size(self, name: str) -> int | None:
        """Return the length of an object in bytes, None where there is none."""

    def sha256(self, name: str) -> str:
        """Return the sha256 of an object in hexadecimal; errors as ``read``."""

    def open_descriptor(self, name: str) -> int:
        """Open an object for ``pread``; the caller closes it; errors as ``read``."""

    def names(self) -> list[str]:
        """Return the sorted names of all objects below the root but temporary ones."""

    def num_bytes(self) -> int:
        """Return the length of all objects together, in bytes."""

    def remove(self, *names: str) -> None:
        """Delete objects durably; missing ones are ignored."""

    def sweep(self) -> None:
        """Delete temporary objects of killed writers, and make durable the others.

        Call it only while no other process writes there.
        """

    def claim(self, name: str, data: bytes, require_dead: RequireDead | None) -> Claim | None:
        """Write an object unless a living process claims it; of several at once one succeeds.

        Args:
            require_dead: Raises an error for a claim that must be respected; None replaces any.

        Returns:
            None if the object changed meanwhile: try again. After a lost answer of an object store
            the claim may be another process's: read the object to be sure.

        Raises:
            FileNotFoundError: the former object or its folder was removed meanwhile: try again.
            StoreError: the object is not a regular file, or the folder cannot be written.
            OSError: the disk cannot write it.
        """


class LocalFolder:
    """A folder of this machine's file systems."""

    is_remote = False
    has_files = True
    max_open_files = 100

    def __init__(self, root: Path) -> None:
        self.root = root
        # Strings: pathlib interns every part of a path, for as long as the process lives.
        self._prefix = str(root)
        self._plain_folders = {""}
        self._made: list[Path] = []
        """Folders that a claim made."""

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

    def claim(self, name: str, data: bytes, require_dead: RequireDead | None) -> LockedFile | None:
        path = Path(self._path(name))
        try:
            self._made += files.make_folder(path.parent)
            descriptor = claim_file(path, data, require_dead)
        except (FileExistsError, NotADirectoryError):
            raise self._not_a_folder() from None
        except BaseException:
            files.remove_empty(self._made)
            raise
        return None if descriptor is None else LockedFile(path, descriptor, self._made)

    def _not_a_folder(self) -> StoreError:
        return StoreError(f"{self} must be a folder, but is a file; choose another path")

    def _path(self, name: str) -> str:
        """Return a path; a folder below the root that is a link is refused."""
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
    """Return the location of a store that is valid in every working folder of this machine."""
    return location if is_object_location(location) else str(Path(location).absolute())
