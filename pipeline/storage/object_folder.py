"""Folders in object stores (S3, GCS, Azure), through obstore, which is an optional dependency.

One object is one file of the store. A PUT publishes an object whole or not at all, and durably once
it is answered, so there are no temporary names, and nothing to sweep but clocks of claims.
Credentials, endpoint and region are read from the environment, by obstore.

Every process opens its own client; ``object_client`` explains why a forked process may not.
"""

import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import ObjectStoreError
from pipeline.storage.files import RequireDead, write_all
from pipeline.storage.object_client import check_location, first_line, open_client
from store_schemas.errors import CorruptError, StoreError

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult
    from obstore.store import ObjectStore

    Version = ObjectMeta | PutResult

CLOCK_PREFIX = "writer.json.clock-"
"""Prefix of empty objects that are written to read the object store's clock."""

ATTEMPTS = 2
"""Number of attempts at a request that obstore gives up or never retries, as a torn answer."""

MAX_OPEN_FILES = 72
"""Number of whole objects that a process keeps in memory to read from, one of each shard.

A reader that opens shards in the order of ``block_order`` and closes the one opened first then
downloads each of them about once.
"""
_PIECE = 1 << 20

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ObjectClaim:
    """An object that this process wrote; its version is the condition of every rewrite."""

    folder: "ObjectFolder"
    name: str
    version: "Version"

    def rewrite(self, data: bytes, is_ours: Callable[[], bool]) -> "ObjectClaim | None":
        written = self.folder._put_if(self.name, data, self.version)
        if written is not None:
            return replace(self, version=written)
        # The version is read before its writer: a later version may be another process's.
        newest = self.folder._stat(self.name)
        return None if newest is None or not is_ours() else replace(self, version=newest)

    def close(self) -> None:
        """Do nothing: an object store has no locks."""


class ObjectFolder:
    """The objects below a prefix of a bucket."""

    is_remote = True
    has_files = False
    max_open_files = MAX_OPEN_FILES

    def __init__(self, location: str) -> None:
        """Check a location; no request is sent yet.

        Args:
            location: ``s3://bucket/prefix``, or the same with ``gs`` or ``az``.

        Raises:
            StoreError: obstore is not installed, or the location has another form.
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

        self._request(
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
        """Read an object into memory and return the descriptor of a file there."""

        def fetch(client: "ObjectStore") -> int:
            if hasattr(os, "memfd_create"):
                descriptor = os.memfd_create("shard", os.MFD_CLOEXEC)
            else:  # a system without files in memory
                with tempfile.TemporaryFile() as file:
                    descriptor = os.dup(file.fileno())
            try:
                with _answer(client, name, None) as pieces:
                    for piece in pieces:
                        write_all(descriptor, memoryview(piece))
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
            self._request(lambda client: obstore.delete(client, list(names)), "delete objects")

    def sweep(self) -> None:
        self.remove(*(path for path, _ in self._list() if path.startswith(CLOCK_PREFIX)))

    def claim(self, name: str, data: bytes, require_dead: RequireDead | None) -> ObjectClaim | None:
        former = self._stat(name)
        if former is not None and require_dead is not None:
            age = self._clock() - former["last_modified"].timestamp()
            require_dead(self.read(name, len(data)), None, age)
        version = self._put_if(name, data, former) or self._stat(name)
        return None if version is None else ObjectClaim(self, name, version)

    def _put_if(self, name: str, data: bytes, former: "Version | None") -> "Version | None":
        """Write an object if it is still the former version, or still absent; else return None.

        Of several writers at once all but one get None; if its answer is lost, that one does too.

        Raises:
            StoreError: the object store has no conditional writes.
            ObjectStoreError: the object store does not answer.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        mode: Any = "create"
        if former is not None:
            pair = {"e_tag": former["e_tag"], "version": former["version"]}
            mode = {key: value for key, value in pair.items() if value is not None}
        with self._explained(f"write {name}"):
            try:
                return obstore.put(self._client(), name, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return None
            except NotSupportedError:
                raise StoreError(
                    f"{self} must lie in an object store with conditional writes, which its writer "
                    "needs to be the only one; write to a folder and copy it there"
                ) from None

    def _clock(self) -> float:
        """Return the time by the object store's own clock, in seconds since 1970."""
        name = f"{CLOCK_PREFIX}{uuid.uuid4().hex}"
        self.publish(name, b"")
        try:
            now = self._stat(name)
        finally:
            self.remove(name)
        return 0.0 if now is None else now["last_modified"].timestamp()

    def _stat(self, name: str) -> "ObjectMeta | None":
        """Return the metadata of an object, None where there is none."""
        import obstore

        try:
            return self._request(lambda client: obstore.head(client, name), f"read {name}")
        except FileNotFoundError:
            return None

    def _get(self, name: str, fetch: Callable[["ObjectStore"], _Result]) -> _Result:
        try:
            return self._request(fetch, f"read {name}")
        except FileNotFoundError:
            raise FileNotFoundError(f"{self}/{name}") from None

    def _list(self) -> list[tuple[str, int]]:
        import obstore

        def fetch(client: "ObjectStore") -> list[tuple[str, int]]:
            found = (entry for part in obstore.list(client) for entry in part)
            return [(entry["path"], entry["size"]) for entry in found if entry["path"]]

        return self._request(fetch, "list objects")

    def _request(self, send: Callable[["ObjectStore"], _Result], what: str) -> _Result:
        """Send a request, which may be sent twice, and return its answer."""
        from obstore.exceptions import GenericError

        with self._explained(what):
            client = self._client()
            for _ in range(ATTEMPTS - 1):
                with suppress(GenericError):
                    return send(client)
            return send(client)

    def _client(self) -> "ObjectStore":
        if self._own is None or self._process != os.getpid():
            self._own, self._process = open_client(self._location), os.getpid()
        return self._own

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn errors of obstore into one line; a missing object stays a FileNotFoundError."""
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
                f"{self} must lie in a bucket that exists, but there is none of that name; create "
                "it, or check the name and the endpoint in the environment"
            ) from None
        except BaseError as error:
            raise ObjectStoreError(
                f"{self} failed every request to {what}: {first_line(error)}; run again when the "
                "object store answers"
            ) from None


@contextmanager
def _answer(
    client: "ObjectStore", name: str, max_bytes: int | None
) -> Iterator[Iterable["bytes | memoryview"]]:
    """Request an object and yield its pieces; a longer one than it may be is not downloaded."""
    import obstore

    answer = obstore.get(client, name)
    size = answer.meta["size"]
    if max_bytes is not None and size > max_bytes:
        raise CorruptError(f"{name} must have at most {max_bytes} bytes, got {size}")
    if size <= _PIECE:
        yield [memoryview(answer.bytes())]
    else:
        yield (memoryview(piece) for piece in answer.stream(min_chunk_size=_PIECE))
