"""Laws of a repair: what is damaged is redone to the very bytes, or refused and left as it is."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import file_layer
from pipeline.errors import ConfigError, ImageError
from pipeline.teacher_store.folder import LocalFolder
from pipeline.teacher_store.opening import read_entry
from pipeline.teacher_store.reader import TeacherStore
from stages.cache_teacher import cache_teacher
from stages.store_repair import RepairResult, StoreRepairConfig, store_repair
from store_schemas.errors import CorruptError, IdentityError, StoreError
from store_schemas.teacher_store import Status

TEACHER = "teachers/teacher"


def repair(
    inputs: Any, say: Callable[[str], None] = lambda _: None, **settings: Any
) -> RepairResult:
    given = {"teacher": inputs.folder / "teacher.onnx", "images": inputs.images}
    config = StoreRepairConfig(store=str(inputs.store), **(given | settings))
    return store_repair(config, say=say)


def flip(path: Path, position: int = -9) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def shard_file(inputs: Any, name: str, shard: int) -> Path:
    (path,) = (inputs.store / TEACHER / name).glob(f"c.{shard}*")
    return Path(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("heatmaps", flip),
        ("outputs", empty),
        ("heatmap_crc32c", flip),
        ("status", Path.unlink),
    ],
)
def test_a_damaged_shard_is_redone_to_the_very_bytes(
    inputs: Any, whole: dict[str, str], name: str, harm: Callable[[Path], object]
) -> None:
    harm(shard_file(inputs, name, 1))
    said: list[str] = []
    result = repair(inputs, said.append)
    assert (result.redone, result.mended) == ((1,), ())
    assert said[0].startswith(f"redoing shard 1: {TEACHER}/{name}/c.1.")
    assert inputs.digests() == whole


def test_a_whole_store_is_left_alone_without_its_teacher_and_images(
    inputs: Any, whole: dict[str, str]
) -> None:
    result = repair(inputs, teacher=None, images=None)
    assert (result.redone, result.mended) == ((), ())
    assert inputs.digests() == whole


@pytest.mark.parametrize(
    "parts", [(0.3, 0.6), pytest.param(np.arange(0, 1, 0.02), marks=pytest.mark.slow)]
)
def test_a_repair_killed_at_any_file_leaves_what_repair_or_resume_finishes(
    inputs: Any, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch, parts: Sequence[float]
) -> None:
    """Until the root says incomplete it is the damaged store, which repair alone takes."""
    publish, limit, count = file_layer.publish, -1, 0

    def counted(path: Path, data: bytes) -> object:
        nonlocal count
        count += 1
        if count == limit:
            raise KeyboardInterrupt
        return publish(path, data)

    monkeypatch.setattr(file_layer, "publish", counted)
    damaged = inputs.folder / "damaged.zarr"
    flip(shard_file(inputs, "heatmaps", 0))
    shard_file(inputs, "status", 2).unlink()
    shutil.copytree(inputs.store, damaged)
    repair(inputs)
    total, num_resumed = count, 0
    for number, stop in enumerate(sorted({1 + int(part * total) for part in parts})):
        shutil.rmtree(inputs.store)
        shutil.copytree(damaged, inputs.store)
        count, limit = 0, stop
        with pytest.raises(KeyboardInterrupt):
            repair(inputs)
        limit = -1
        is_reopened = read_entry(LocalFolder(inputs.store), None).content is None
        if is_reopened and number % 2:
            num_resumed += 1
            cache_teacher(inputs.config(), resume=True)
        else:
            repair(inputs)
        assert inputs.digests() == whole, stop
    assert num_resumed


def test_people_whose_image_came_back_are_added(inputs: Any) -> None:
    cache_teacher(inputs.config(store=str(inputs.folder / "whole.zarr")))
    good = inputs.image_of_row(0).read_bytes()
    path = inputs.truncate(0)
    cache_teacher(inputs.config(skip_bad=True))
    before, said = inputs.digests(), list[str]()
    result = repair(inputs, said.append)
    assert result.missing_people
    assert (result.redone, inputs.digests()) == ((), before)
    assert re.match("still left out: image .* cannot be read", said[0])

    path.write_bytes(good)
    result = repair(inputs, said.append)
    assert "is another file than the planned one; --accept-mended-images takes it" in said[-1]
    assert (result.redone, inputs.digests()) == ((), before)

    result = repair(inputs, accept_mended_images=True)
    assert result.missing_people == ()
    assert inputs.digests() == inputs.digests(inputs.folder / "whole.zarr")


def test_a_damaged_shard_that_lacked_people_lacks_them_again(inputs: Any) -> None:
    inputs.truncate(0)
    cache_teacher(inputs.config(skip_bad=True))
    before = inputs.digests()
    flip(shard_file(inputs, "status", 0))
    assert repair(inputs).redone == (0,)
    assert inputs.digests() == before


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
    assert repair(inputs, accept_mended_images=True).redone == (row // 2,)
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
    "path",
    [
        *(f"{TEACHER}/manifest/{n}" for n in ("rows", "lengths", "sha256", "status_counts")),
        *(f"{TEACHER}/manifest/images_sha256", "people/image_sha256"),
    ],
)
@pytest.mark.parametrize("with_checksum", [False, True])
def test_what_follows_from_other_bytes_is_mended(
    inputs: Any, whole: dict[str, str], path: str, with_checksum: bool
) -> None:
    (chunk,) = (inputs.store / path).glob("c.0*")
    flip(chunk, 1)
    if with_checksum:
        seal(chunk)
    result = repair(inputs, teacher=None)
    assert (result.mended, result.redone) == ((path,), ())
    assert inputs.digests() == whole


def test_metadata_of_groups_and_arrays_are_mended(inputs: Any, whole: dict[str, str]) -> None:
    harmed = [name for name in whole if name.endswith("/zarr.json")]
    for place, name in enumerate(harmed):
        if place % 2:
            (inputs.store / name).unlink()
        else:
            flip(inputs.store / name)
    assert len(repair(inputs, teacher=None, images=None).mended) == len(harmed) > 20
    assert inputs.digests() == whole


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


def test_an_incomplete_store_is_finished(
    inputs: Any, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(inputs.store)
    bad = inputs.image_of_row(0)
    good = bad.read_bytes()
    inputs.truncate(0)
    with pytest.raises(ImageError):
        cache_teacher(inputs.config())
    bad.write_bytes(good)
    (receipt, *_) = sorted((inputs.store / TEACHER / "manifest").glob("*.json"))
    receipt.write_bytes(receipt.read_bytes()[:40])
    with pytest.raises(IdentityError, match="--accept-mended-images"):
        repair(inputs)
    repair(inputs, accept_mended_images=True)
    assert inputs.digests() == whole
    assert (TeacherStore.open(inputs.store).status == Status.OK).all()


def test_a_path_without_a_store_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="must hold a teacher store"):
        store_repair(StoreRepairConfig(store=str(tmp_path / "a/b")))
    assert list(tmp_path.iterdir()) == []


def seal(chunk: Path) -> None:
    """Give a chunk the checksum of its bytes, as whoever alters it on purpose would."""
    import google_crc32c

    payload = chunk.read_bytes()[:-4]
    chunk.write_bytes(payload + google_crc32c.value(payload).to_bytes(4, "little"))
    assert np.frombuffer(payload, np.uint8).size
