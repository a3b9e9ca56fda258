"""Files of a store appear whole or not at all."""

import hashlib
import os
from pathlib import Path

import pytest

from pipeline.storage import files
from pipeline.storage.files import TEMPORARY_SUFFIX
from store_schemas.errors import CorruptError


def test_a_published_file_replaces_an_older_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    files.publish(path, b"old")
    files.publish(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert files.walk_files(tmp_path) == [path]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failed_publication_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="disk full"):
        files.publish(path, b"new")
    assert files.walk_files(tmp_path) == [path]
    assert path.read_bytes() == b"old"


def test_a_file_is_durable_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        real_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        calls.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    files.publish(tmp_path / "file", b"data")
    assert calls == ["file", "rename", "folder"]


def test_sweeping_removes_temporaries_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    kept, litter = tmp_path / "a" / "c.0", tmp_path / "a" / "b" / f".c.0.1f{TEMPORARY_SUFFIX}"
    for path in (kept, litter):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert files.sweep_temporaries(tmp_path) == [litter]
    assert files.walk_files(tmp_path) == [kept]


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    files.remove(tmp_path / "a", tmp_path / "b", tmp_path / "c" / "d")
    assert files.walk_files(tmp_path) == []


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    target.write_bytes(b"data")
    link.symlink_to(target)
    os.mkfifo(pipe)
    assert files.read_file(target, 4) == b"data"
    for path in (link, pipe, tmp_path):
        with pytest.raises(CorruptError, match="regular file"):
            files.read_file(path, 4)
    assert [files.file_size(path) for path in (target, link, pipe)] == [4, None, None]
    with pytest.raises(FileNotFoundError):
        files.read_file(tmp_path / "none", 4)


def test_a_longer_file_than_it_may_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(CorruptError, match="at most 4 bytes, got 5"):
        files.read_file(tmp_path / "file", 4)


def test_a_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    assert files.file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
