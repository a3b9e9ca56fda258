"""Laws of going on with a store: the same bytes as without a stop, and from nothing else."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ImageError, Stopped
from pipeline.storage import files
from pipeline.storage.folder import LocalFolder
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.writer import TeacherStoreWriter
from stages.cache_teacher import cache_teacher
from store_schemas.errors import IdentityError, IncompleteError, StoreError
from store_schemas.profiles import PROFILES, HeatmapProfile
from store_schemas.root_metadata import read_entry
from tests.support.interruption import interrupt_after_the_first_shard


@pytest.mark.parametrize("part", [0.05, 0.5, 0.7, 0.9, 0.99])
def test_a_killed_run_resumes_to_the_very_bytes_of_an_uninterrupted_one(
    inputs: Any, monkeypatch: pytest.MonkeyPatch, part: float
) -> None:
    """Killed at some file of the plan, of a shard, of its receipt or of the manifest."""
    publish, count = files.publish, 0

    def counted(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == limit:
            raise KeyboardInterrupt
        publish(path, data)

    limit = -1
    monkeypatch.setattr(files, "publish", counted)
    whole = inputs.config(store=str(inputs.folder / "whole.zarr"))
    cache_teacher(whole)
    limit, count = int(part * count), 0
    with pytest.raises(KeyboardInterrupt):
        cache_teacher(inputs.config())
    limit = -1
    with pytest.raises((IncompleteError, StoreError)):
        TeacherStore.open(inputs.store)
    cache_teacher(inputs.config(), resume=True)
    assert inputs.digests() == inputs.digests(Path(whole.store))


@pytest.mark.parametrize("recorded", [2, None])
def test_threads_that_are_not_given_are_one_or_what_the_store_was_begun_with(
    inputs: Any, monkeypatch: pytest.MonkeyPatch, recorded: int | None
) -> None:
    begun = inputs.config(teacher_settings__num_threads=recorded)
    interrupt_after_the_first_shard(monkeypatch)
    with pytest.raises(Stopped):
        cache_teacher(begun)
    said: list[str] = []
    cache_teacher(inputs.config(teacher_settings__num_threads=None), resume=True, say=said.append)
    assert any(line.startswith("resuming: ") for line in said)
    entry = read_entry(LocalFolder(inputs.store), None)
    assert entry.execution_recipe["num_threads"] == (recorded or 1)


def test_a_profile_that_has_changed_since_goes_on_as_the_store_was_begun(
    inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program upgrade alone refuses no store: it has its own settings."""
    whole = inputs.config(store=str(inputs.folder / "whole.zarr"))
    cache_teacher(whole)
    interrupt_after_the_first_shard(monkeypatch)
    with pytest.raises(Stopped):
        cache_teacher(inputs.config())
    changed = HeatmapProfile("default", "uint8", 0.1, 4, "zstd", 3)
    monkeypatch.setitem(PROFILES, "default", changed)
    cache_teacher(inputs.config(), resume=True)
    assert inputs.digests() == inputs.digests(Path(whole.store))


def test_a_resumed_run_does_not_look_again_at_what_is_there(
    inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = TeacherStoreWriter.write_shard

    def stop_at_two(self: TeacherStoreWriter, shard: int, *arrays: Any, **more: Any) -> Any:
        if shard == 2:
            raise KeyboardInterrupt
        return write(self, shard, *arrays, **more)

    monkeypatch.setattr(TeacherStoreWriter, "write_shard", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        cache_teacher(inputs.config())
    monkeypatch.setattr(TeacherStoreWriter, "write_shard", write)
    before = inputs.digests(inputs.store / "teachers/teacher")
    said: list[str] = []
    cache_teacher(inputs.config(), resume=True, say=said.append)
    after = inputs.digests(inputs.store / "teachers/teacher")
    assert {name: after[name] for name in before if "manifest" not in name} == {
        name: digest for name, digest in before.items() if "manifest" not in name
    }
    num_shards = TeacherStore.open(inputs.store).num_shards
    assert said[-1] == f"resuming: 2 of {num_shards} shards there"


def test_resuming_a_complete_store_changes_nothing(inputs: Any) -> None:
    first = cache_teacher(inputs.config())
    before = inputs.digests()
    again = cache_teacher(inputs.config(), resume=True)
    assert (again.content_sha256, inputs.digests()) == (first.content_sha256, before)


def test_an_image_that_came_back_is_taken_if_asked_and_nothing_shows_that_it_was_away(
    inputs: Any,
) -> None:
    whole = inputs.config(store=str(inputs.folder / "whole.zarr"))
    cache_teacher(whole)
    good = inputs.image_of_row(0).read_bytes()
    path = inputs.truncate(0)
    with pytest.raises(ImageError, match="--resume --accept-mended-images takes other files"):
        cache_teacher(inputs.config())
    path.write_bytes(good)
    with pytest.raises(IdentityError, match="--accept-mended-images"):
        cache_teacher(inputs.config(), resume=True)
    cache_teacher(inputs.config(accept_mended_images=True), resume=True)
    assert inputs.digests() == inputs.digests(Path(whole.store))


def test_a_store_is_not_overwritten_without_resume(inputs: Any) -> None:
    cache_teacher(inputs.config())
    before = inputs.digests()
    with pytest.raises(StoreError, match=r"teacher\.zarr holds a store; use --resume, or choose"):
        cache_teacher(inputs.config())
    assert inputs.digests() == before
