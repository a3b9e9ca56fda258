"""More shards than a process may keep: the others are read by pieces, and checked as strictly."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.teacher_store import shards
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.errors import CorruptError

HEATMAPS = "teachers/hrnet/heatmaps/c.0.0.0.0.0"
INDEX_BYTES = 6 * 16 + 4


@pytest.fixture
def store(copy: Path, monkeypatch: pytest.MonkeyPatch) -> TeacherStore:
    """A store of which a process keeps one shard, the last; the others it has compared."""
    monkeypatch.setattr(shards, "KEPT_BYTES", 0)
    store = TeacherStore.open(copy)
    store.read([0, 3, 6], [0, 0, 0])
    assert kept(store) == [2]
    return store


def kept(store: TeacherStore) -> list[int]:
    assert store._heatmaps is not None
    return list(store._heatmaps._heatmaps.kept())


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_view_by_pieces_leaves_what_is_kept(store: TeacherStore) -> None:
    store.read([0, 3, 1, 6], [0, 1, 0, 1])
    assert kept(store) == [2]


def test_a_shard_asked_for_twice_in_a_row_is_kept(store: TeacherStore) -> None:
    """So reading in order opens each shard once, not every view of it."""
    store.read([0, 0], [0, 1])
    assert kept(store) == [0]
    store.read([6, 3, 6], [0, 0, 0])
    assert kept(store) == [0]


def test_where_opening_is_a_download_every_shard_is_taken_whole(
    store: TeacherStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store._layout.folder, "has_files", False)
    store.read([0], [0])
    assert kept(store) == [0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (HEATMAPS, "must have"),
        ("teachers/hrnet/outputs/c.0.0.0.0", "must have"),
        ("teachers/hrnet/heatmap_crc32c/c.0.0", "must have"),
    ],
)
@pytest.mark.parametrize("damage", ["truncate", "delete"])
def test_a_file_that_is_torn_or_gone_is_an_error(
    copy: Path, store: TeacherStore, name: str, says: str, damage: str
) -> None:
    if damage == "truncate":
        os.truncate(copy / name, 9)
    else:
        (copy / name).unlink()
        says = "is missing"
    with pytest.raises(CorruptError, match=rf"shard 0, row 1, view 1: .*{says}"):
        store.read([1], [1])


@pytest.mark.parametrize(
    ("offset", "length", "says"),
    [
        (2**64 - 1, 2**64 - 1, "is missing from the index"),
        (2**63, 1, "points outside"),
        (0, 2**64 - 1, "must have at most"),
        (0, 0, "must have crc32c"),
    ],
)
def test_an_index_altered_since_it_was_compared_is_an_error(
    copy: Path, store: TeacherStore, offset: int, length: int, says: str
) -> None:
    entry = np.array([offset, length], "<u8").tobytes()
    path = copy / HEATMAPS
    overwrite(path, path.stat().st_size - INDEX_BYTES, entry)
    with pytest.raises(CorruptError, match=f"shard 0, row 0, view 0: .*{says}"):
        store.read([0], [0])


@pytest.mark.parametrize(
    ("name", "offset", "says"),
    [
        (HEATMAPS, 20, "must have crc32c"),
        ("teachers/hrnet/heatmap_crc32c/c.0.0", 0, "another row's"),
    ],
)
def test_a_chunk_or_checksum_altered_since_is_an_error(
    factory: Any, copy: Path, store: TeacherStore, name: str, offset: int, says: str
) -> None:
    factory.flip(copy / name, offset)
    with pytest.raises(CorruptError, match=f"shard 0, row 0, view 0: .*{says}"):
        store.read([0], [0])
