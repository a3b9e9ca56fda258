"""Laws of a repair: what is damaged is repaired or finished to the very bytes."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ImageError
from pipeline.storage import files
from pipeline.storage.folder import LocalFolder
from pipeline.teacher_store.reader import TeacherStore
from stages.cache_teacher import cache_teacher
from store_schemas.errors import IdentityError
from store_schemas.root_metadata import read_entry
from store_schemas.teacher_store import Status
from tests.support.store_repairs import TEACHER, flip, repair, shard_file


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
    assert (result.repaired_shards, result.repaired_parts) == ((1,), ())
    assert said[0].startswith(f"repairing shard 1: {TEACHER}/{name}/c.1.")
    assert inputs.digests() == whole


def test_a_whole_store_is_left_alone_without_its_teacher_and_images(
    inputs: Any, whole: dict[str, str]
) -> None:
    result = repair(inputs, teacher=None, images=None)
    assert (result.repaired_shards, result.repaired_parts) == ((), ())
    assert inputs.digests() == whole


@pytest.mark.parametrize(
    "parts", [(0.3, 0.6), pytest.param(np.arange(0, 1, 0.02), marks=pytest.mark.slow)]
)
def test_a_repair_killed_at_any_file_leaves_what_repair_or_resume_finishes(
    inputs: Any, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch, parts: Sequence[float]
) -> None:
    """Until the root says incomplete it is the damaged store, which repair alone takes."""
    publish, limit, count = files.publish, -1, 0

    def counted(path: Path, data: bytes) -> object:
        nonlocal count
        count += 1
        if count == limit:
            raise KeyboardInterrupt
        return publish(path, data)

    monkeypatch.setattr(files, "publish", counted)
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
        is_reopened = read_entry(LocalFolder(inputs.store), None).content_sha256 is None
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
    assert (result.repaired_shards, inputs.digests()) == ((), before)
    assert re.match("still left out: image .* cannot be read", said[0])

    path.write_bytes(good)
    result = repair(inputs, said.append)
    assert "is another file than the planned one; --accept-mended-images accepts it" in said[-1]
    assert (result.repaired_shards, inputs.digests()) == ((), before)

    result = repair(inputs, accept_mended_images=True)
    assert result.missing_people == ()
    assert inputs.digests() == inputs.digests(inputs.folder / "whole.zarr")


def test_a_damaged_shard_that_lacked_people_lacks_them_again(inputs: Any) -> None:
    inputs.truncate(0)
    cache_teacher(inputs.config(skip_bad=True))
    before = inputs.digests()
    flip(shard_file(inputs, "status", 0))
    assert repair(inputs).repaired_shards == (0,)
    assert inputs.digests() == before


@pytest.mark.parametrize(
    "path",
    [
        *(f"{TEACHER}/manifest/{n}" for n in ("rows", "lengths", "sha256", "status_counts")),
        *(f"{TEACHER}/manifest/images_sha256", "people/image_sha256"),
    ],
)
@pytest.mark.parametrize("with_checksum", [False, True])
def test_what_follows_from_other_bytes_is_repaired(
    inputs: Any, whole: dict[str, str], path: str, with_checksum: bool
) -> None:
    (chunk,) = (inputs.store / path).glob("c.0*")
    flip(chunk, 1)
    if with_checksum:
        seal(chunk)
    result = repair(inputs, teacher=None)
    assert (result.repaired_parts, result.repaired_shards) == ((path,), ())
    assert inputs.digests() == whole


def test_metadata_of_groups_and_arrays_are_repaired(inputs: Any, whole: dict[str, str]) -> None:
    harmed = [name for name in whole if name.endswith("/zarr.json")]
    for place, name in enumerate(harmed):
        if place % 2:
            (inputs.store / name).unlink()
        else:
            flip(inputs.store / name)
    assert len(repair(inputs, teacher=None, images=None).repaired_parts) == len(harmed) > 20
    assert inputs.digests() == whole


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


def seal(chunk: Path) -> None:
    """Give a chunk the checksum of its bytes, as whoever alters it on purpose would."""
    import google_crc32c

    payload = chunk.read_bytes()[:-4]
    chunk.write_bytes(payload + google_crc32c.value(payload).to_bytes(4, "little"))
    assert np.frombuffer(payload, np.uint8).size
