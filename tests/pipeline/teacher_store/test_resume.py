"""A store is carried on from wherever its writer was killed, and only as what it was begun."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.storage import files
from pipeline.storage.files import TEMPORARY_SUFFIX
from pipeline.teacher_store.plan import people_identity, views_identity
from store_schemas.errors import IdentityError

pytestmark = pytest.mark.usefixtures("quick_disk")


def run(factory: Any, path: Path) -> None:
    """Do what a program does that may have been killed before."""
    is_begun = (path / "zarr.json").exists()
    writer = factory.resume(path) if is_begun else factory.create(path)
    for shard in writer.pending_shards():
        factory.write(writer, shard)
    writer.finish()


class Kill(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let that many files be published or removed, and leave the next one half-written."""
    done = 0
    publish, remove = files.publish, files.remove

    def count() -> None:
        nonlocal done
        if done == step:
            raise Kill
        done += 1

    def publish_or_die(path: Path, data: bytes) -> None:
        if done == step:
            files.make_folder(path.parent)
            (path.parent / f".{path.name}.0{TEMPORARY_SUFFIX}").write_bytes(data[: len(data) // 2])
        count()
        publish(path, data)

    def remove_or_die(*paths: Path) -> None:
        for path in paths:
            count()
            remove(path)

    monkeypatch.setattr(files, "publish", publish_or_die)
    monkeypatch.setattr(files, "remove", remove_or_die)


def test_a_kill_between_any_two_steps_is_healed(
    factory: Any, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampled inside the plan, whose steps are alike; every step of shards and manifest."""
    expected = factory.digests(whole)
    plan_steps = sum(not name.startswith("teachers/hrnet/") for name in expected) + 5
    step, healed = 0, 0
    while True:
        path = tmp_path / f"store{step}"
        with monkeypatch.context() as patch:
            kill_at(patch, step)
            try:
                run(factory, path)
            except Kill:
                healed += 1
            else:
                break
        factory.die(path)
        run(factory, path)
        factory.let_go(path)
        assert factory.digests(path) == expected, step
        step += 9 if step < plan_steps - 9 else 1
    assert healed > 30


def test_resuming_after_half_the_shards_writes_the_bytes_of_an_uninterrupted_run(
    factory: Any, whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    writer = factory.create(path)
    factory.write(writer, 2)
    again = factory.resume(path)
    assert again.pending_shards() == [0, 1]
    assert again.threshold == 0.01
    factory.write_rest(again)
    assert factory.digests(path) == factory.digests(whole)


@pytest.mark.parametrize("name", ["heatmaps", "outputs", "heatmap_crc32c", "status"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_resuming_writes_a_damaged_shard_again(
    factory: Any, whole: Path, tmp_path: Path, name: str, damage: str
) -> None:
    path = tmp_path / "store"
    writer = factory.create(path)
    for shard in range(3):
        factory.write(writer, shard)
    file = next((path / "teachers/hrnet" / name).glob("c.1*"))
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    if damage == "delete":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flip" else data[:-1])
    again = factory.resume(path)
    assert again.pending_shards() == [1]
    factory.write_rest(again)
    assert factory.digests(path) == factory.digests(whole)


def test_a_torn_or_foreign_receipt_makes_its_shard_pending(factory: Any, tmp_path: Path) -> None:
    writer = factory.create(tmp_path)
    for shard in range(3):
        factory.write(writer, shard)
    receipts = sorted((tmp_path / "teachers/hrnet/manifest").glob("*.json"))
    assert [file.name for file in receipts] == ["000000.json", "000001.json", "000002.json"]
    receipts[0].write_bytes(receipts[1].read_bytes())
    receipts[2].write_bytes(receipts[2].read_bytes()[:-9])
    assert factory.resume(tmp_path).pending_shards() == [0, 2]


def test_a_kill_while_a_shard_is_replaced_leaves_it_pending(
    factory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = factory.create(tmp_path)
    heatmaps, outputs, status = factory.shard(range(0, 3))
    factory.write(writer, 0, (heatmaps, outputs, status))
    with monkeypatch.context() as patch:
        kill_at(patch, 2)  # after the receipt's removal and the first file
        with pytest.raises(Kill):
            factory.write(writer, 0, (255 - heatmaps, outputs, status))
    assert writer.pending_shards() == [0, 1, 2]


def test_resuming_with_another_teacher_names_field_values_and_way_out(
    factory: Any, whole: Path
) -> None:
    other = {"teacher": factory.identity["teacher"] | {"frame": "udp"}}
    message = r"'teacher.frame' differs: the store has \"msra\", now it is \"udp\"; .*another path"
    with pytest.raises(IdentityError, match=message):
        factory.resume(whole, identity=other)


def test_resuming_with_other_people_or_views_is_refused(factory: Any, whole: Path) -> None:
    people, views = factory.people(), factory.views()
    same = factory.identity | {
        "people": people_identity(people).to_json(),
        "views": views_identity(views).to_json(),
    }
    factory.resume(whole, identity=same)
    people.bbox_xywh[0, 0] += 1
    other = same | {"people": people_identity(people).to_json()}
    with pytest.raises(IdentityError, match=r"'people.arrays.bbox_xywh' differs"):
        factory.resume(whole, identity=other)


def test_resuming_under_another_recipe_is_refused_unless_allowed(factory: Any, whole: Path) -> None:
    other = factory.recipe | {"batch_size": 64}
    with pytest.raises(IdentityError, match=r"'execution_recipe.batch_size' .* 32, now it is 64"):
        factory.resume(whole, recipe=other)
    factory.resume(whole, recipe=other, allow_other_recipe=True)


def test_an_image_that_came_back_is_taken_only_if_asked_and_no_shard_was_written_of_it(
    factory: Any, tmp_path: Path
) -> None:
    """Image 0 is shard 0's, image 1 that of rows 3 and 4, image 2 that of rows 5 and 6."""
    writer = factory.create(tmp_path)
    factory.write(writer, 0)
    now = factory.image_sha256.copy()
    now[1] += 1
    message = r"'people.image_sha256' differs: .* 'train/bé.jpg' .* --accept-mended-images"
    with pytest.raises(IdentityError, match=message):
        factory.resume(tmp_path, image_sha256=now)
    again = factory.resume(tmp_path, image_sha256=now, accept_mended_images=True)
    assert again.pending_shards() == [1, 2]
    assert factory.resume(tmp_path, image_sha256=now).pending_shards() == [1, 2]
    now[0] += 1
    with pytest.raises(IdentityError, match=r"image 'a\.jpg'"):
        factory.resume(tmp_path, image_sha256=now, accept_mended_images=True)


def test_an_image_of_a_written_and_of_a_pending_shard_cannot_be_replaced(
    factory: Any, tmp_path: Path
) -> None:
    writer = factory.create(tmp_path)
    factory.write(writer, 1)
    now = factory.image_sha256.copy()
    now[2] += 1
    with pytest.raises(IdentityError, match=r"image 'c\.jpg'"):
        factory.resume(tmp_path, image_sha256=now, accept_mended_images=True)
