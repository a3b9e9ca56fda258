"""Fixtures that several test folders use."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.object_server import BUCKET, ObjectServer, start_server, use_server

# Fixed seeds, and no deadline: a busy machine is no error.
settings.register_profile("distil", deadline=None, derandomize=True)
settings.load_profile("distil")

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of real people and a real teacher beside the project."""
    if not SHARED.is_dir():
        pytest.skip("the folder `shared` with real people and a teacher is not beside the project")
    return SHARED


@pytest.fixture(scope="session")
def _object_server() -> Iterator[ObjectServer]:
    server = start_server()
    yield server
    server.stop()


@pytest.fixture
def object_server(
    _object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectServer]:
    """An S3 server that the environment names, with an empty bucket of the name ``BUCKET``."""
    use_server(monkeypatch, _object_server)
    _object_server.heal()
    yield _object_server
    _object_server.heal()


@pytest.fixture
def object_store(object_server: ObjectServer, request: pytest.FixtureRequest) -> str:
    """The URL of a place in an object store where nothing is yet."""
    return f"s3://{BUCKET}/{abs(hash(request.node.nodeid)):x}/teacher.zarr"
