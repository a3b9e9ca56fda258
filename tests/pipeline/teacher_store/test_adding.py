"""Another teacher joins a store: the same people and views, and nothing of the others changes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.repair.metadata import repair_image_digests
from pipeline.repair.verification import foreign_names
from pipeline.storage import files
from pipeline.storage.files import TEMPORARY_SUFFIX
from pipeline.storage.folder import open_folder
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.writer import TeacherStoreWriter
from store_schemas.errors import CorruptError, IdentityError, SchemaError, StoreError
from store_schemas.identity import canonical_json, fingerprint
from store_schemas.manifest import read_manifest
from store_schemas.root_metadata import read_entries

pytestmark = pytest.mark.usefixtures("quick_disk")

OTHER = {"teacher": {"architecture": "simcc", "sha256": "cd" * 32, "frame": "udp"}}


def add(factory: Any, path: Path, **changes: Any) -> TeacherStoreWriter:
    teacher = {
        "name": "second",
        "identity": OTHER["teacher"],
        "recipe": {},
        "provenance": {},
        "threshold": 0.02,
        "rows_per_shard": 2,
    }
    writer: TeacherStoreWriter = factory.create(path, **(teacher | changes))
    return writer


def join(factory: Any, path: Path) -> None:
    """Do what a program does that adds a teacher and may have been killed before."""
    if "second" in read_entries(open_folder(path)):
        writer = factory.resume(path, teacher_name="second", identity=OTHER, recipe={})
    else:
        writer = add(factory, path)
    factory.write_rest(writer)


def first_says(path: Path) -> bytes:
    store = TeacherStore.open(path, "hrnet")
    return store.read([0, 6], [1, 0]).heatmaps.tobytes() + str(store.content_sha256).encode()


class Kill(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def kill_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Let that many files be published, and leave the next one half-written."""
    done, publish = 0, files.publish

    def publish_or_die(path: Path, data: bytes) -> None:
        nonlocal done
        if done == step:
            files.make_folder(path.parent)
            (path.parent / f".{path.name}.0{TEMPORARY_SUFFIX}").write_bytes(data[: len(data) // 2])
            raise Kill
        done += 1
        publish(path, data)

    patch.setattr(files, "publish", publish_or_die)


def test_a_kill_anywhere_leaves_the_first_teacher_and_is_healed(
    factory: Any, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, before = first_says(whole), factory.digests(whole)
    join(factory, Path(shutil.copytree(whole, tmp_path / "expected")))
    expected = factory.digests(tmp_path / "expected")
    changed = {name for name in before if expected[name] != before[name]}
    assert changed == {"zarr.json"}
    step, healed = 0, 0
    while True:
        path = Path(shutil.copytree(whole, tmp_path / f"store{step}"))
        with monkeypatch.context() as patch:
            kill_at(patch, step)
            try:
                join(factory, path)
            except Kill:
                healed += 1
            else:
                break
        assert first_says(path) == said, step
        factory.die(path)
        assert first_says(path) == said, step
        join(factory, path)
        assert factory.digests(path) == expected, step
        step += 1 if step < 8 else 4  # every step of the plan
    assert healed > 12


def test_both_teachers_are_read_by_their_names_alone(factory: Any, copy: Path) -> None:
    join(factory, copy)
    with pytest.raises(SchemaError, match="holds the teachers hrnet, second; name one of them"):
        TeacherStore.open(copy)
    first, second = (TeacherStore.open(copy, name) for name in ("hrnet", "second"))
    assert (first.num_shards, second.num_shards) == (3, 4)
    assert second.identity.views == first.identity.views
    assert second.fingerprint != first.fingerprint
    assert foreign_names(first._layout) == []
    said, _, _ = factory.shard(range(2, 4))
    np.testing.assert_array_equal(second.read([3], [0]).heatmaps[0], said[1, 0])


def test_a_teacher_joins_a_store_that_is_not_complete_and_each_is_resumed_alone(
    factory: Any, begun: Path, whole: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(begun, tmp_path / "store"))
    writer = add(factory, path)
    factory.write(writer, 0)
    first = factory.resume(path, teacher_name="hrnet")
    assert first.pending_shards() == [2]
    factory.write_rest(first)
    join(factory, path)
    assert (
        TeacherStore.open(path, "hrnet").content_sha256 == TeacherStore.open(whole).content_sha256
    )
    assert TeacherStore.open(path, "second").content_sha256 is not None


def moved_box(factory: Any) -> dict[str, Any]:
    people = factory.people()
    people.bbox_xywh[2, 0] += 1
    return {"people": people}


def other_views(factory: Any) -> dict[str, Any]:
    views = factory.views()
    views.image_to_crop[0, 0, 0, 2] += 1
    return {"views": views}


def more_views(factory: Any) -> dict[str, Any]:
    views = factory.views()
    three = [0, 1, 1]
    return {
        "views": type(views)(
            views.image_to_crop[:, three],
            views.is_mirrored[:, three],
            views.input_size_hw,
            views.seed,
            views.recipe,
        )
    }


def other_image(factory: Any) -> dict[str, Any]:
    return {"image_sha256": factory.image_sha256 + np.uint8(1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (moved_box, r"'people\.bbox_xywh' differs: of annotation 102 the store has"),
        (other_views, r"'views\.arrays\.image_to_crop' differs: .* share their views"),
        (more_views, r"'views\.num_views' differs: the store has 2, now it is 3; a store's views"),
        (other_image, r"'people\.image_sha256' differs: .* image 'a\.jpg'"),
    ],
)
def test_other_people_or_views_are_refused_and_nothing_is_written(
    factory: Any, copy: Path, change: Any, message: str
) -> None:
    before = factory.digests(copy)
    with pytest.raises(IdentityError, match=message):
        add(factory, copy, **change(factory))
    assert factory.digests(copy) == before


def test_a_name_that_is_taken_is_refused(factory: Any, copy: Path) -> None:
    with pytest.raises(StoreError, match="has a teacher 'hrnet'; use --resume, or choose another"):
        add(factory, copy, name="hrnet")
    (copy / "teachers/second").mkdir()
    (copy / "teachers/second/notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"must be new or empty, but holds teachers/second/notes"):
        add(factory, copy)


def test_teachers_of_other_people_are_no_store(factory: Any, copy: Path) -> None:
    join(factory, copy)
    document = json.loads((copy / "zarr.json").read_bytes())
    entry = document["attributes"]["teachers"]["second"]
    entry["identity"]["people"]["num_ignored"] = 7
    entry["fingerprint"] = fingerprint(entry["identity"])
    (copy / "zarr.json").write_bytes(canonical_json(document))
    message = r"'people\.num_ignored' differs: .* 1, now it is 7; the teachers hrnet and second"
    with pytest.raises(IdentityError, match=message):
        TeacherStore.open(copy, "hrnet")


def test_an_image_that_another_teachers_shard_was_written_of_is_not_replaced(
    factory: Any, copy: Path
) -> None:
    """No shard of the second teacher is there, but the first one has them all."""
    add(factory, copy)
    now = factory.image_sha256.copy()
    now[1] += 1
    again = {"teacher_name": "second", "identity": OTHER, "recipe": {}}
    with pytest.raises(IdentityError, match=r"image 'train/bé\.jpg'"):
        factory.resume(copy, image_sha256=now, accept_mended_images=True, **again)
    assert first_says(copy)


def test_damaged_digests_are_not_repaired_to_images_that_another_teacher_did_not_see(
    factory: Any, copy: Path, tmp_path: Path
) -> None:
    writer = add(factory, copy)
    for name in factory.people().image_name:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"another image")
    factory.flip(copy / "people/image_sha256/c.0.0", 3)
    manifest = read_manifest(writer.layout, writer.entry)
    assert not manifest.is_present.any()
    with pytest.raises(CorruptError, match="not the ones that shard 0 was written from"):
        repair_image_digests(writer.layout, manifest, tmp_path, writer.run_id, accept=True)
