"""Shards of a complete store, downloaded once to a folder of this machine and read from there.

A file is kept only if it has the length and sha256 of the store's manifest, and every process
compares it again before its first use, so a damaged cache costs a download and no wrong view. The
folder is named after fingerprint and ``content_sha256``: another store never finds its files.
"""

import hashlib
import re
from pathlib import Path
from typing import Any, Self

from pipeline.storage.folder import LocalFolder, StoreFolder, open_folder
from pipeline.teacher_store.opening import layout_of
from store_schemas.errors import CorruptError, IdentityError, IncompleteError, StoreError
from store_schemas.manifest import read_manifest
from store_schemas.root_metadata import read_entry

_SHARD_NUMBER = re.compile(r"\d+")
_VIEWS = "views/"


class CachedFolder:
    """A store's folder whose shards are read from copies; nothing is written through it."""

    has_files = True
    max_open_files = LocalFolder.max_open_files

    def __init__(self, origin: StoreFolder, cache: Path, teacher: str | None = None) -> None:
        """Read the manifest of a complete store.

        Args:
            origin: Folder of the store.
            cache: Folder of the copies, of any number of stores.
            teacher: As for ``TeacherStore.open``.

        Raises:
            IncompleteError: the store is not complete, so its shards may still change.
            StoreError: it cannot be read.
        """
        entry = read_entry(origin, teacher)
        if entry.content_sha256 is None:
            raise IncompleteError(
                f"{origin} must be complete to be cached, but is still being written; finish it by "
                "running cache-teacher with --resume"
            )
        self.is_remote = origin.is_remote
        self._origin = origin
        self._cache = cache
        self._teacher = entry.teacher
        self._content_sha256 = entry.content_sha256
        self._layout = layout_of(origin, entry)
        self._manifest = read_manifest(self._layout, entry)
        self._copies = LocalFolder(cache / f"{entry.fingerprint[:16]}-{entry.content_sha256[:32]}")
        self._columns = {n: column for column, n in enumerate(self._layout.shard_specs)}
        self._compared: set[str] = set()
        """Copies that this process has compared."""
        self._digests: dict[str, str] = {}
        """sha256 of the views' files, as the origin gave them to this process."""

    def __str__(self) -> str:
        return str(self._origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, (self._origin, self._cache, self._teacher, self._content_sha256)

    @classmethod
    def _again(cls, origin: StoreFolder, cache: Path, teacher: str, content_sha256: str) -> Self:
        folder = cls(origin, cache, teacher)
        if folder._content_sha256 != content_sha256:
            raise IdentityError(
                f"{origin} was replaced after it was opened: content was {content_sha256}, now it "
                f"is {folder._content_sha256}; start again"
            )
        return folder

    def read(self, name: str, max_bytes: int) -> bytes:
        expected = self._expected(name)
        if expected is not None and self._is_copied(name, *expected):
            return self._copies.read(name, max_bytes)
        data = self._origin.read(name, max_bytes)
        if name.startswith(_VIEWS) and not name.endswith(".json"):
            # the reader compares these itself when it opens the store; the copy serves single rows
            self._digests[name] = hashlib.sha256(data).hexdigest()
            if self._digest_of_copy(name) != self._digests[name]:
                self._copies.publish(name, data)
            self._compared.add(name)
        return data

    def open_descriptor(self, name: str) -> int:
        expected = self._expected(name)
        is_copied = name in self._digests if expected is None else self._is_copied(name, *expected)
        # A shard that is damaged in the origin is opened there: its good views can still be read.
        return (self._copies if is_copied else self._origin).open_descriptor(name)

    def size(self, name: str) -> int | None:
        return self._origin.size(name)

    def sha256(self, name: str) -> str:
        return self._origin.sha256(name)

    def names(self) -> list[str]:
        return self._origin.names()

    def num_bytes(self) -> int:
        return self._origin.num_bytes()

    def publish(self, name: str, data: bytes) -> None:
        self._refuse()

    def remove(self, *names: str) -> None:
        self._refuse()

    def sweep(self) -> None:
        self._refuse()

    def claim(self, *_: object, **__: object) -> None:
        self._refuse()

    def _refuse(self) -> None:
        raise StoreError(f"{self} is read through a cache and cannot be written")

    def _is_copied(self, name: str, length: int, digest: str) -> bool:
        """Copy a file unless a good copy exists; False: the origin is not as in the manifest."""
        if name in self._compared and self._copies.size(name) == length:
            return True
        if self._digest_of_copy(name) != digest:
            try:
                data = self._origin.read(name, length)
            except CorruptError:
                return False
            if len(data) != length or hashlib.sha256(data).hexdigest() != digest:
                return False
            self._copies.publish(name, data)
        self._compared.add(name)
        return True

    def _digest_of_copy(self, name: str) -> str | None:
        try:
            return self._copies.sha256(name)
        except (FileNotFoundError, CorruptError):
            return None

    def _expected(self, name: str) -> tuple[int, str] | None:
        """Return length and sha256 of a shard's file in the manifest; None for another file."""
        path, _, key = name.removeprefix(f"{self._layout.teacher_path}/").partition("/")
        found = _SHARD_NUMBER.search(key)
        if path not in self._columns or found is None:
            return None
        shard, column = int(found.group()), self._columns[path]
        in_range = shard < len(self._manifest.is_present)
        if not in_range or self._layout.shard_files(shard)[path] != name:
            return None
        digest = self._manifest.sha256[shard, column].tobytes().hex()
        return int(self._manifest.lengths[shard, column]), digest


def open_for_reading(
    location: str | Path | StoreFolder, cache: Path | None, teacher: str | None = None
) -> StoreFolder:
    """Return the folder of a store, read through a cache of a teacher's shards if one is given.

    Raises:
        StoreError: as ``open_folder``; with a cache also what ``CachedFolder`` raises.
    """
    folder = open_folder(location)
    if cache is None:
        return folder
    if cache.exists() and not cache.is_dir():
        raise StoreError(f"the cache {cache} must be a folder, but is a file; choose another path")
    return CachedFolder(folder, cache.absolute(), teacher)
