"""``store_schemas`` alone opens a store, looks at every byte of it, and says what is altered."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from store_schemas.checking import check_store
from store_schemas.errors import CorruptError, IncompleteError, SchemaError, StoreError
from store_schemas.identity import canonical_json
from store_schemas.profiles import PROFILES
from tests.support.generated_store import N, write_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checking") / "store.zarr"
    write_store(path, "default", 3)
    return path


@pytest.mark.parametrize("profile", PROFILES)
def test_a_store_of_every_profile_is_as_it_promises(profile: str, tmp_path: Path) -> None:
    write_store(tmp_path / "store.zarr", profile, 3)
    (found,) = check_store(tmp_path / "store.zarr")
    counts = {"not written": 0, "ok": 20, "image unreadable": 3, "output not finite": 1}
    assert found.status_counts == counts
    assert (found.name, found.num_people, found.num_views) == ("hrnet", N, 3)
    assert found.content_sha256 is not None


def flip(name: str, offset: int) -> Callable[[Path], None]:
    def change(store: Path) -> None:
        data = bytearray((store / name).read_bytes())
        data[offset] ^= 1
        (store / name).write_bytes(data)

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda store: (store / name).unlink()


def swap(first: str, second: str) -> Callable[[Path], None]:
    def change(store: Path) -> None:
        a, b = (store / first).read_bytes(), (store / second).read_bytes()
        (store / first).write_bytes(b)
        (store / second).write_bytes(a)

    return change


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(store: Path) -> None:
        text = (store / name).read_text()
        assert old in text
        (store / name).write_text(text.replace(old, new, 1))

    return change


HEATMAPS = "teachers/hrnet/heatmaps"
FAULTS: list[tuple[Callable[[Path], None], type[StoreError], str]] = [
    (remove("zarr.json"), IncompleteError, "has no zarr.json"),
    (edit("zarr.json", '"schema":"1"', '"schema":"2"'), SchemaError, "schema '1'"),
    (edit("zarr.json", '"seed":7', '"seed":8'), CorruptError, "altered after its fingerprint"),
    (edit("views/zarr.json", '"seed":7', '"seed":8'), SchemaError, r"attributes\.seed.* must be 7"),
    (edit(f"{HEATMAPS}/zarr.json", '"clevel":5', '"clevel":4'), SchemaError, "'codecs' must be"),
    (remove("people/area/c.0"), CorruptError, r"people/area/c\.0 is missing"),
    (flip("people/area/c.0", 0), CorruptError, r"people/area/c\.0 must have crc32c"),
    (flip("people/image_sha256/c.0.0", -1), CorruptError, "must have crc32c"),
    (flip(f"{HEATMAPS}/c.1.0.0.0.0", 3), CorruptError,
     r"c\.1\.0\.0\.0\.0 must have sha256 \w{12}, got \w{12}"),
    (swap(f"{HEATMAPS}/c.0.0.0.0.0", f"{HEATMAPS}/c.1.0.0.0.0"), CorruptError, "must have"),
    (remove("teachers/hrnet/status/c.2.0"), CorruptError, "is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "message"), FAULTS)
def test_whatever_is_altered_is_named(
    change: Callable[[Path], None],
    kind: type[StoreError],
    message: str,
    whole: Path,
    tmp_path: Path,
) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "store.zarr"))
    change(store)
    with pytest.raises(kind, match=message):
        check_store(store)


def test_of_an_incomplete_store_the_plan_is_checked(whole: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "store.zarr"))
    document = json.loads((store / "zarr.json").read_bytes())
    document["attributes"]["teachers"]["hrnet"] |= {"complete": False, "content": None}
    (store / "zarr.json").write_bytes(canonical_json(document))
    (found,) = check_store(store)
    assert found.content_sha256 is None
    assert set(found.status_counts.values()) == {0}
    flip("views/is_mirrored/c.0.0", 0)(store)
    with pytest.raises(CorruptError, match="views/is_mirrored"):
        check_store(store)
