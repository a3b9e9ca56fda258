"""Laws of a repair: what it refuses is named with a way out, and the store is left as it is."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, ImageError
from pipeline.teacher_store.reader import TeacherStore
from stages.cache_teacher import cache_teacher
from stages.settings.evaluation import StoreRepairConfig
from stages.store_repair import store_repair
from store_schemas.errors import CorruptError, IdentityError, StoreError
from tests.support.store_repairs import TEACHER, flip, repair, shard_file


def test_a_changed_image_is_refused_before_anything_moves_and_taken_if_asked(
    inputs: Any, whole: dict[str, str]
) -> None:
    """Asked or not, an image that a good shard was written of stays as it was."""
    image_of_row = TeacherStore.open(inputs.store).people.image_index
    shards_of_row = np.arange(len(image_of_row)) // 2
    shards = {image: set(shards_of_row[image_of_row == image]) for image in set(image_of_row)}
    own = next(image for image, of in shards.items() if len(of) == 1)
    shared = next(image for image, of in shards.items() if len(of) == 2)
    for image, is_taken in ((shared, False), (own, True)):
        shutil.rmtree(inputs.store)
        cache_teacher(inputs.config())
        row = int(np.flatnonzero(image_of_row == image)[0])
        flip(shard_file(inputs, "heatmaps", row // 2))
        damaged = inputs.digests()
        path = inputs.image_of_row(row)
        path.write_bytes(path.read_bytes() + b"\0")
        match = r"'people.image_sha256' differs: .* sha256 \w+, now it is \w+; give the image as"
        for accept in (False, *([] if is_taken else [True])):
            with pytest.raises(IdentityError, match=match):
                repair(inputs, accept_mended_images=accept)
            assert inputs.digests() == damaged
    assert repair(inputs, accept_mended_images=True).repaired_shards == (row // 2,)
    changed = {name for name, digest in inputs.digests().items() if digest != whole[name]}
    assert {"zarr.json", "people/image_sha256/c.0.0"} <= changed
    assert not [name for name in changed if "/heatmaps/" in name]


def test_an_image_that_is_needed_and_unreadable_is_named_before_anything_moves(
    inputs: Any, whole: dict[str, str]
) -> None:
    flip(shard_file(inputs, "heatmaps", 0))
    damaged = inputs.digests()
    inputs.truncate(0)
    with pytest.raises(ImageError, match="nothing was changed: the image is needed to write 1 sha"):
        repair(inputs)
    assert inputs.digests() == damaged


def other_teacher(inputs: Any) -> dict[str, Any]:
    inputs.write_teacher(seed=1)
    return {}


def moved_box(inputs: Any) -> dict[str, Any]:
    inputs.edit(lambda document: document["annotations"][2]["bbox"].__setitem__(2, 9.0))
    return {"annotations": inputs.annotations}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (other_teacher, IdentityError, r"'teacher\.sha256' differs: .*, now it is .*; give the te"),
        (moved_box, IdentityError, r"'people\.bbox_xywh' differs: of annotation \d+ the store has"),
        (lambda _: {"teacher": None}, ConfigError, "name it with --teacher"),
        (lambda _: {"images": None}, ConfigError, "name their folder with --images"),
        (lambda _: {"images": Path("no")}, ConfigError, "--images no does not exist"),
    ],
)
def test_what_a_store_was_not_made_from_is_refused_before_anything_moves(
    inputs: Any,
    whole: dict[str, str],
    change: Callable[[Any], dict[str, Any]],
    error: type[Exception],
    match: str,
) -> None:
    flip(shard_file(inputs, "heatmaps", 0))
    damaged = inputs.digests()
    with pytest.raises(error, match=match):
        repair(inputs, **change(inputs))
    assert inputs.digests() == damaged


@pytest.mark.parametrize(
    ("path", "match"),
    [
        (
            "people/bbox_xywh",
            "must have crc32c .* restore the file from a copy, or write the store",
        ),
        ("people/instance_id", "must have crc32c"),
        ("views/image_to_crop", "must have crc32c"),
        (f"{TEACHER}/manifest/codec_error", "codec_error of the manifest cannot be rebuilt to con"),
        ("zarr.json", "zarr.json"),
    ],
)
def test_what_follows_from_nothing_is_named_with_a_way_out(
    inputs: Any, whole: dict[str, str], path: str, match: str
) -> None:
    target = inputs.store / path
    flip(next(target.glob("c.*")) if target.is_dir() else target, 0)
    with pytest.raises(StoreError, match=match):
        repair(inputs)


def test_a_manifest_and_a_shard_damaged_together_are_not_guessed(
    inputs: Any, whole: dict[str, str]
) -> None:
    flip(shard_file(inputs, "heatmaps", 1))
    flip(next((inputs.store / TEACHER / "manifest/sha256").glob("c.*")), 1)
    damaged = inputs.digests()
    with pytest.raises(CorruptError, match=r"sha256 of the manifest cannot be rebuilt .* restore"):
        repair(inputs)
    assert inputs.digests() == damaged


def test_a_path_without_a_store_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="must hold a teacher store"):
        store_repair(StoreRepairConfig(store=str(tmp_path / "a/b")))
    assert list(tmp_path.iterdir()) == []
