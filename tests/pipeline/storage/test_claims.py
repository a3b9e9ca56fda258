"""Claims of objects are the same in a local folder and in an object store."""

from pathlib import Path

import pytest

from pipeline.storage.folder import StoreFolder, open_folder
from store_schemas.errors import LeaseError

NAME = "claimed"


@pytest.fixture(params=["local", "object store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> StoreFolder:
    if request.param == "local":
        return open_folder(tmp_path / "store")
    return open_folder(str(request.getfixturevalue("object_store")))


def refuse(data: bytes, is_free: bool | None, age: float) -> None:
    assert is_free in (False, None)
    assert -2 < age < 60
    raise LeaseError(data.decode())


def accept(*_: object) -> None:
    pass


def test_a_claim_is_respected_until_it_is_replaced(folder: StoreFolder) -> None:
    first = folder.claim(NAME, b"first", refuse)
    assert first is not None
    with pytest.raises(LeaseError, match="first"):
        folder.claim(NAME, b"other", refuse)
    first = first.rewrite(b"FIRST", lambda: False)
    assert first is not None
    assert folder.read(NAME, 5) == b"FIRST"
    for replacement, require_dead in ((b"again", accept), (b"taken", None)):
        second = folder.claim(NAME, replacement, require_dead)
        assert second is not None
        assert folder.read(NAME, 5) == replacement
        assert first.rewrite(b"FIRST", lambda: False) is None
        assert folder.read(NAME, 5) == replacement
        first.close()
        first = second
    first.close()
    assert folder.names() == [NAME]
