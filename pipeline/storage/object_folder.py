"""A store's folder in an object store (S3, GCS, Azure), through obstore, which is optional.

One object is one file of the store. A PUT shows an object whole or not at all and is durable when
it is answered, so publishing needs no temporary names, and there is nothing to sweep but what the
lease leaves. Credentials, endpoint and region are read from the environment, as obstore does.

Every process has a client of its own; see ``object_client`` for those that are forked.
"""

import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import ObjectStoreError
from pipeline.storage.object_client import check_location, first_line, open_client
from store_schemas.errors import CorruptError, StoreError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

CLOCK_PREFIX = "writer.json.clock-"
"""Of objects whose only use is the time at which the object store took them."""

ATTEMPTS = 2
"""Of what obstore has given up, or does not itself repeat: writing, and a body that breaks off."""

MAX_OPEN_FILES = 72
"""Whole objects that a process keeps in memory to read from, one of each shard. Who opens shards
in the order of ``block_order`` and closes the one opened first then takes about each once."""
_PIECE = 1 << 20

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ObjectVersion:
    """A version of an object; the claim of the process that wrote it."""

    folder: "ObjectFolder"
    name: str
    e_tag: str | None
    version: str | None
    modified: datetime | None = None
    """Time by the object store's own clock."""

    def rewrite(self, data: bytes, is_ours: Callable[[], bool]) -> "ObjectVersion | None":
        written = self.folder._put_if(self.name, data, self)
        if written is not None:
            return written
        newest = self.folder._version(self.name)  # read first: the next version may be another's
        return newest if is_ours() else None

    def close(self) -> None:
        """Do nothing: there are no locks."""


class ObjectFolder:
    """The objects below a prefix of a bucket."""

    is_remote = True
    has_files = False
    max_open_files = MAX_OPEN_FILES

    def __init__(self, location: str) -> None:
        """Take ``s3://bucket/prefix``, or gs or az; nothing is asked of it yet.

        Raises:
            StoreError: obstore is not installed, or the location is not of this form.
        """
        self._location = check_location(location)
        self._process: int | None = None
        self._own: ObjectStore | None = None

    def __str__(self) -> str:
        return self._location

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectFolder, (self._location,)

    def publish(self, name: str, data: bytes) -> None:
        import obstore

        with self._explained(f"write {name}"):
            self._insist(
                lambda client: obstore.put(client, name, data, use_multipart=False), f"write {name}"
            )

    def read(self, name: str, max_bytes: int) -> bytes:
        def fetch(client: "ObjectStore") -> bytes:
            with _answer(client, name, max_bytes) as pieces:
                return b"".join(pieces)

        return self._get(name, fetch)

    def size(self, name: str) -> int | None:
        found = self._stat(name)
        return None if found is None else found["size"]

    def sha256(self, name: str) -> str:
        def fetch(client: "ObjectStore") -> str:
            digest = hashlib.sha256()
            with _answer(client, name, None) as pieces:
                for piece in pieces:
                    digest.update(piece)
            return digest.hexdigest()

        return self._get(name, fetch)

    def open_descriptor(self, name: str) -> int:
        """Take an object into memory and open it there."""

        def fetch(client: "ObjectStore") -> int:
            descriptor = _open_memory()
            try:
                with _answer(client, name, None) as pieces:
                    for piece in pieces:
                        _write_all(descriptor, memoryview(piece))
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

        return self._get(name, fetch)

    def names(self) -> list[str]:
        return sorted(path for path, _ in self._list() if not path.startswith(CLOCK_PREFIX))

    def num_bytes(self) -> int:
        return sum(size for _, size in self._list())

    def remove(self, *names: str) -> None:
        import obstore

        if names:
            with self._explained("delete objects"):
                self._insist(lambda client: obstore.delete(client, list(names)), "delete objects")

    def sweep(self) -> None:
        self.remove(*(path for path, _ in self._list() if path.startswith(CLOCK_PREFIX)))

    def claim(
        self,
        name: str,
        data: bytes,
        require_dead: Callable[[bytes, bool | None, float], None] | None,
    ) -> ObjectVersion | None:
        former = self._version(name)
        if former is not None and require_dead is not None:
            require_dead(self.read(name, len(data)), None, self._age(former))
        return self._put_if(name, data, former) or self._version(name)

    def _put_if(self, name: str, data: bytes, former: ObjectVersion | None) -> ObjectVersion | None:
        """Write an object if it is still the former version, or still absent; else return None.

        Of several writers at once all but one get None; where an answer was lost even that one may.

        Raises:
            StoreError: the object store has no conditional writes.
            ObjectStoreError: it does not answer.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        mode: Any = "create"
        if former is not None:
            pair = {"e_tag": former.e_tag, "version": former.version}
            mode = {key: value for key, value in pair.items() if value is not None}
        with self._explained(f"write {name}"):
            try:
                put = obstore.put(self._client(), name, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return None
            except NotSupportedError:
                raise StoreError(
                    f"{self} must lie in an object store with conditional writes, which its writer "
                    "needs to be the only one; write to a folder and copy it there"
                ) from None
        return ObjectVersion(self, name, put["e_tag"], put["version"])

    def _version(self, name: str) -> ObjectVersion | None:
        """Return the version of an object, None where there is none."""
        found = self._stat(name)
        if found is None:
            return None
        return ObjectVersion(self, name, found["e_tag"], found["version"], found["last_modified"])

    def _age(self, version: ObjectVersion) -> float:
        """Return the age of a version in seconds, by the object store's own clock."""
        name = f"{CLOCK_PREFIX}{uuid.uuid4().hex}"
        self.publish(name, b"")
        try:
            now = self._version(name)
        finally:
            self.remove(name)
        if now is None or now.modified is None or version.modified is None:
            return 0.0
        return (now.modified - version.modified).total_seconds()

    def _stat(self, name: str) -> "ObjectMeta | None":
        """Return the metadata of an object, None where there is none."""
        import obstore

        with self._explained(f"read {name}"):
            try:
                return self._insist(lambda client: obstore.head(client, name), f"read {name}")
            except FileNotFoundError:
                return None

    def _get(self, name: str, fetch: Callable[["ObjectStore"], _Result]) -> _Result:
        with self._explained(f"read {name}"):
            try:
                return self._insist(fetch, f"read {name}")
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                raise FileNotFoundError(f"{self}/{name}") from None

    def _list(self) -> list[tuple[str, int]]:
        import obstore

        def fetch(client: "ObjectStore") -> list[tuple[str, int]]:
            found = (entry for part in obstore.list(client) for entry in part)
            return [(entry["path"], entry["size"]) for entry in found if entry["path"]]

        with self._explained("list objects"):
            return self._insist(fetch, "list objects")

    def _insist(self, ask: Callable[["ObjectStore"], _Result], what: str) -> _Result:
        """Ask again what obstore gave up; everything asked so may be asked twice."""
        from obstore.exceptions import GenericError

        client = self._client()
        for attempt in range(ATTEMPTS):
            try:
                return ask(client)
            except GenericError:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError(what)

    def _client(self) -> "ObjectStore":
        if self._own is None or self._process != os.getpid():
            self._own, self._process = open_client(self._location), os.getpid()
        return self._own

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what obstore says into one line; a missing object stays FileNotFoundError."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise ObjectStoreError(
                f"{self} must let these credentials {what}, but refuses: {first_line(error)}; "
                "check the credentials in the environment"
            ) from None
        except FileNotFoundError as error:
            if "NoSuchBucket" not in str(error):
                raise
            raise ObjectStoreError(
                f"{self} must lie in a bucket that exists, but there is none of that name; make it "
                "first, or check the name and the endpoint in the environment"
            ) from None
        except BaseError as error:
            raise ObjectStoreError(
                f"{self} did not let this run {what}, however often it was asked: "
                f"{first_line(error)}; run again when it answers"
            ) from None


@contextmanager
def _answer(
    client: "ObjectStore", name: str, max_bytes: int | None
) -> Iterator[Iterable["bytes | memoryview"]]:
    """Ask for an object and yield its pieces; what is too long is not taken over the network."""
    import obstore

    answer = obstore.get(client, name)
    size = answer.meta["size"]
    if max_bytes is not None and size > max_bytes:
        raise CorruptError(f"{name} must have at most {max_bytes} bytes, got {size}")
    if size <= _PIECE:
        yield [memoryview(answer.bytes())]
    else:
        yield (memoryview(piece) for piece in answer.stream(min_chunk_size=_PIECE))


def _open_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("shard", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:  # a system without files in memory
        return os.dup(file.fileno())


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
