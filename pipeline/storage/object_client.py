"""Clients of object stores: the form of a location, time limits and retries.

Threads of obstore do not survive a fork, and a call without them never returns, so a process that
was forked after its parent had opened a client is refused.
"""

import os
import re
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pipeline.errors import ObjectStoreError
from store_schemas.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
_LOCATION = re.compile(rf"({'|'.join(SCHEMES)})://[^/?#@:\s]+(/[^/?#\\]+)*/?")

REQUEST_SECONDS = 60
"""Time limit for one request, up to the end of its answer."""
MAX_RETRIES = 8
RETRY_SECONDS = 60
"""Time limit for the retries of a request that failed with 5xx or had no answer."""

_runtime_process: int | None = None
"""Id of the process that obstore's threads belong to."""


def is_object_location(location: object) -> bool:
    """Return whether a location has the scheme of an object store; the rest is not checked."""
    return isinstance(location, str) and location.startswith(tuple(f"{s}://" for s in SCHEMES))


def check_location(location: str) -> str:
    """Return a location in an object store without the slashes at its end.

    Raises:
        StoreError: obstore is not installed, or the location has another form.
    """
    parts = location.split("/")[3:]
    if not _LOCATION.fullmatch(location) or {".", ".."} & set(parts):
        raise StoreError(
            f"{location} must be SCHEME://BUCKET/NAME with one of {', '.join(SCHEMES)}, such as "
            "s3://bucket/teacher.zarr; credentials and endpoint are read from the environment"
        )
    if find_spec("obstore") is None:
        raise StoreError(
            f"{location} lies in an object store, which needs obstore; install the extra "
            "objects (uv sync --extra objects)"
        )
    return location.rstrip("/")


def open_client(location: str) -> "ObjectStore":
    """Return a client of obstore for a location, with the settings in the environment.

    Raises:
        ObjectStoreError: obstore rejects these settings.
        StoreError: this process was forked after its parent had opened a client.
    """
    global _runtime_process
    if _runtime_process not in (None, os.getpid()):
        raise StoreError(
            f"{location} cannot be read by a process that was forked after its parent had read an "
            "object store; start processes by forkserver or spawn"
        )
    _runtime_process = os.getpid()
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    try:
        return from_url(
            location,
            client_options={
                "timeout": timedelta(seconds=REQUEST_SECONDS),
                "connect_timeout": timedelta(seconds=5),
                # Given any client options, obstore no longer reads this one from the environment.
                "allow_http": any(
                    os.environ.get(f"{cloud}_ALLOW_HTTP", "").lower() in {"1", "true"}
                    for cloud in ("AWS", "GOOGLE", "AZURE")
                ),
            },
            retry_config={
                "max_retries": MAX_RETRIES,
                "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            },
        )
    except (BaseError, ValueError) as error:
        raise ObjectStoreError(
            f"{location} cannot be opened with the settings in the environment: {first_line(error)}"
        ) from None


def first_line(error: Exception) -> str:
    """Return the message of an error of obstore as one line, without its dump of values."""
    return " ".join(str(error).split("Debug source")[0].split())[:300]
