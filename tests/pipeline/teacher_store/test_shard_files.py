"""A file that stays open: what it was opened as, or an error that names it."""

import errno
import hashlib
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pipeline.storage.folder import LocalFolder
from pipeline.teacher_store.opening import layout_of
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.recovery import bad_shards
from pipeline.teacher_store.shard_files import StoredFile
from store_schemas.errors import CorruptError
from store_schemas.manifest import read_manifest
from store_schemas.root_metadata import read_entry


def fail_to_read(*_: Any) -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_pieces_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    file = StoredFile.open(LocalFolder(tmp_path), "a", 100)
    assert file.read(3, 97) == bytes([97, 98, 99])
    os.truncate(tmp_path / "a", 99)
    with pytest.raises(CorruptError, match=r"^a must have 3 bytes at 97, got 2; run distil store"):
        file.read(3, 97)
    file.close()


def test_another_length_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    with pytest.raises(CorruptError, match=r"^a must have 3 bytes, got 2; run distil store repair"):
        StoredFile.open(LocalFolder(tmp_path), "a", 3)
    with pytest.raises(CorruptError, match=r"^b is missing; run distil store repair"):
        StoredFile.open(LocalFolder(tmp_path), "b", 3)


def test_a_disk_that_cannot_read_is_named_with_shard_and_row(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TeacherStore.open(whole)
    store.read([3], [0])
    monkeypatch.setattr(os, "pread", fail_to_read)
    match = r"shard 1, row 3, view 0: .*heatmaps/c\.1\.\S+ cannot be read at \d+: Input/output err"
    with pytest.raises(CorruptError, match=match):
        store.read([3], [0])


def test_a_shard_that_the_disk_cannot_read_is_a_damaged_one(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = LocalFolder(whole)
    entry = read_entry(folder, None)
    layout = layout_of(folder, entry)
    manifest = read_manifest(layout, entry)

    monkeypatch.setattr(hashlib, "file_digest", fail_to_read)
    faults = bad_shards(layout, manifest, plan=None)
    assert list(faults) == list(range(len(manifest.rows)))
    assert "cannot be read: Input/output error" in faults[0][0]
