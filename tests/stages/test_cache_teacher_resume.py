"""Laws of going on with a store: the same bytes as without a stop, and from nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import file_layer
from pipeline.errors import ImageError
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.writer import TeacherStoreWriter
from stages.cache_teacher import cache_teacher
from store_schemas.errors import IdentityError, IncompleteError, StoreError


@pytest.mark.parametrize("part", [0.05, 0.5, 0.7, 0.9, 0.99])
def test_a_killed_run_resumes_to_the_very_bytes_of_an_uninterrupted_one(
    inputs: Any, monkeypatch: pytest.MonkeyPatch, part: float
) -> None:
    """Killed at some file of the plan, of a shard, of its receipt or of the manifest."""
    publish, count = file_layer.publish, 0

    def counted(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == limit:
            raise KeyboardInterrupt
        publish(path, data)

    limit = -1
    monkeypatch.setattr(file_layer, "publish", counted)
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
    assert said[-1] == f"resuming: 2 of {num_shards} shards are there"


def test_resuming_a_complete_store_changes_nothing(inputs: Any) -> None:
    first = cache_teacher(inputs.config())
    before = inputs.digests()
    again = cache_teacher(inputs.config(), resume=True)
    assert (again.content, inputs.digests()) == (first.content, before)


def other_teacher(inputs: Any) -> None:
    inputs.write_teacher(seed=1)


def move_box(inputs: Any) -> None:
    def change(document: dict[str, Any]) -> None:
        document["annotations"][2]["bbox"][2] -= 0.5

    inputs.edit(change)


def move_keypoint(inputs: Any) -> None:
    def change(document: dict[str, Any]) -> None:
        keypoints = document["annotations"][2]["keypoints"]
        first = next(k for k in range(17) if keypoints[3 * k + 2] > 0)
        keypoints[3 * first] += 0.25

    inputs.edit(change)


def change_image(inputs: Any) -> None:
    path = inputs.image_of_row(0)
    path.write_bytes(path.read_bytes() + b"\0")


def leave_out_a_person(inputs: Any) -> None:
    inputs.edit(lambda document: document["annotations"].pop())


@pytest.mark.parametrize(
    ("change", "settings", "field"),
    [
        (other_teacher, {}, r"teacher\.sha256"),
        (move_box, {}, r"people\.bbox_xywh' differs: of annotation 3 the store has"),
        (move_keypoint, {}, r"people\.keypoints' differs: of keypoint 'nose' of annotation 3"),
        (
            change_image,
            {},
            r"people\.image_sha256' differs: .* --accept-mended-images",
        ),
        (leave_out_a_person, {}, r"people\.instance_id' differs: the store has annotation 11, "),
        (
            None,
            {"profile": "small"},
            r"codec\.profile' differs: the store has \"default\", now it is \"small\"",
        ),
        (None, {"views": 4}, r"views\.num_views' differs: the store has 3, now it is 5"),
        (None, {"seed": 9}, r"views\.seed' differs: the store has 0, now it is 9"),
        (None, {"recipe__rotation_degrees": 5.0}, r"views\.recipe\.rotation_degrees"),
        (None, {"teacher_settings__decoding": "quarter"}, r"teacher\.decoding"),
        (None, {"teacher_settings__flip_test": True}, r"teacher\.flip_test"),
        (None, {"teacher_settings__batch_size": 8}, r"execution_recipe\.batch_size"),
        (
            None,
            {"teacher_settings__num_threads": 2},
            r"execution_recipe\.num_threads' differs: the store has 1, now it is 2",
        ),
    ],
)
def test_a_store_is_not_resumed_from_anything_else(
    inputs: Any,
    change: Callable[[Any], None] | None,
    settings: dict[str, object],
    field: str,
) -> None:
    """Refused by the first field that differs, and nothing is touched."""
    inputs.truncate(0)
    with pytest.raises(ImageError):
        cache_teacher(inputs.config())
    before = inputs.digests()
    if change is not None:
        change(inputs)
    with pytest.raises(IdentityError, match=rf"identity field '{field}") as refusal:
        cache_teacher(inputs.config(**settings), resume=True)
    assert any(
        way in str(refusal.value)
        for way in ("resume with", "give the", "another path", "another store")
    )
    assert inputs.digests() == before


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
