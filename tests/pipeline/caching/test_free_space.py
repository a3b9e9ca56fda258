"""A store that cannot fit is refused before it begins; one that may not fit is warned of."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from pipeline.caching.free_space import check_free_space, free_space
from store_schemas.errors import StoreError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 1_000_000))


def said_of(num_bytes: float, store: Path) -> list[str]:
    said: list[str] = []
    check_free_space(num_bytes, str(store), said.append)
    return said


@pytest.mark.usefixtures("free")
def test_a_store_is_refused_only_where_half_of_it_does_not_fit(tmp_path: Path) -> None:
    store = tmp_path / "not" / "there.zarr"
    assert said_of(1_000_000, store) == []
    for size in (1_000_001, 2_000_000):
        (line,) = said_of(size, store)
        assert line.startswith("THE DISK MAY BE TOO SMALL")
        assert line.endswith("--plan measures it")
        assert f"1.0 MB free at {tmp_path}" in line
    with pytest.raises(StoreError, match=r"needs about 2\.0 MB .* 1\.0 MB free at .*--profile"):
        said_of(2_000_001, store)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("free")
def test_an_object_store_has_no_known_end() -> None:
    assert free_space("s3://bucket/a.zarr") == (None, "at s3://bucket/a.zarr")
    check_free_space(1e18, "s3://bucket/a.zarr", pytest.fail)
