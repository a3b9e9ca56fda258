"""A store is written whole, or carried on from wherever its writer was killed."""

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import file_layer
from pipeline.coco.people import IgnoreRegions, People, Skeleton
from pipeline.file_layer import TEMPORARY_SUFFIX, walk_files
from pipeline.teacher_store.plan import ViewPlan, people_identity, views_identity
from pipeline.teacher_store.writer import TeacherStoreWriter
from store_schemas.errors import IdentityError, IncompleteError, SchemaError, StoreError
from store_schemas.teacher_store import Status

NUM_INSTANCES, NUM_VIEWS, ROWS_PER_SHARD = 7, 2, 3
SKELETON = Skeleton(("nose", "left", "right"), ((0, 1), (0, 2)), (0, 2, 1), (0.026, 0.1, 0.1))
IDENTITY = {"teacher": {"architecture": "tokenpose-s", "sha256": "ab" * 32, "frame": "msra"}}
RECIPE = {"batch_size": 32, "deterministic": True}
DIGESTS = np.random.default_rng(1).integers(0, 256, (3, 32)).astype(np.uint8)


def make_people() -> People:
    """Seven people in three images, some keypoints unlabelled; one crowd."""
    random = np.random.default_rng(0)
    keypoints = random.uniform(0, 200, (NUM_INSTANCES, 3, 3)).astype(np.float32)
    keypoints[..., 2] = random.integers(0, 3, keypoints.shape[:2])
    keypoints[keypoints[..., 2] == 0, :2] = np.nan
    ignored = IgnoreRegions(
        np.array([900]),
        np.array([1]),
        np.array([[1.0, 2.0, 3.0, 4.0]]),
        np.array([12.0]),
        np.array([True]),
        np.array([0]),
    )
    return People(
        skeleton=SKELETON,
        category_id=1,
        image_id=np.array([4, 5, 9]),
        image_name=("a.jpg", "train/bé.jpg", "c.jpg"),
        image_size_hw=np.array([[480, 640], [100, 90], [64, 64]]),
        instance_id=np.arange(100, 100 + NUM_INSTANCES),
        image_index=np.array([0, 0, 0, 1, 1, 2, 2]),
        bbox_xywh=random.uniform(1, 60, (NUM_INSTANCES, 4)),
        area=random.uniform(1, 900, NUM_INSTANCES),
        keypoints=keypoints,
        ignored=ignored,
    )


def make_views() -> ViewPlan:
    """A plain view and a mirrored one of each person."""
    image_to_crop = np.random.default_rng(2).uniform(-9, 9, (NUM_INSTANCES, NUM_VIEWS, 2, 3))
    image_to_crop[..., :2] = np.eye(2) * [0.5, 0.75]
    image_to_crop[:, 1, 0, 0] *= -1
    is_mirrored = np.zeros((NUM_INSTANCES, NUM_VIEWS), np.bool_)
    is_mirrored[:, 1] = True
    return ViewPlan(image_to_crop, is_mirrored, (32, 24), 7, {"rotation": 40.0})


def make_shard(
    rows: range,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """What a teacher says of a shard; the second view of row 4 is not finite."""
    random = np.random.default_rng(rows.start)
    heatmaps = random.integers(0, 256, (len(rows), NUM_VIEWS, 3, 8, 6)).astype(np.uint8)
    outputs = random.uniform(0, 1, (len(rows), NUM_VIEWS, 3, 4)).astype(np.float32)
    status = np.full((len(rows), NUM_VIEWS), Status.OK, np.uint8)
    if 4 in rows:
        status[4 - rows.start, 1] = Status.OUTPUT_NOT_FINITE
        outputs[4 - rows.start, 1] = np.inf
    return heatmaps, outputs, status


def create(path: Path, **changes: Any) -> TeacherStoreWriter:
    arguments: dict[str, Any] = {
        "people": make_people(),
        "image_sha256": DIGESTS,
        "views": make_views(),
        "teacher_name": "hrnet",
        "identity": IDENTITY,
        "recipe": RECIPE,
        "provenance": {"zarr": "3"},
        "heatmap_size_hw": (8, 6),
        "threshold": 0.01,
        "rows_per_shard": ROWS_PER_SHARD,
    }
    return TeacherStoreWriter.create(path, **(arguments | changes))


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durability is tested with the file layer; here it would only take time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def write_rest(writer: TeacherStoreWriter) -> str:
    for shard in writer.pending_shards():
        writer.write_shard(shard, *make_shard(writer.shard_rows(shard)))
    return writer.finish()


def run(path: Path) -> str:
    """Do what a program does that may have been killed before."""
    if (path / "zarr.json").exists():
        return write_rest(TeacherStoreWriter.resume(path, IDENTITY, RECIPE))
    return write_rest(create(path))


def digests(path: Path) -> dict[str, str]:
    return {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in walk_files(path)
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store written without interruption."""
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    run(path)
    return path


def test_two_runs_write_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "store")
    assert digests(tmp_path / "store") == digests(whole)


def test_a_complete_store_holds_nothing_that_is_not_zarr(whole: Path) -> None:
    for path in walk_files(whole):
        assert path.name == "zarr.json" or path.name.startswith("c."), path
        assert (path.parent / "zarr.json").is_file()
    root = json.loads((whole / "zarr.json").read_bytes())
    assert root["attributes"]["schema"] == "1-draft"
    assert root["attributes"]["teachers"]["hrnet"]["complete"] is True


class Kill(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let that many files be published or removed, and leave the next one half-written."""
    done = 0
    publish, remove = file_layer.publish, file_layer.remove

    def count() -> None:
        nonlocal done
        if done == step:
            raise Kill
        done += 1

    def publish_or_die(path: Path, data: bytes) -> None:
        if done == step:
            file_layer.make_folder(path.parent)
            (path.parent / f".{path.name}.0{TEMPORARY_SUFFIX}").write_bytes(data[: len(data) // 2])
        count()
        publish(path, data)

    def remove_or_die(*paths: Path) -> None:
        for path in paths:
            count()
            remove(path)

    monkeypatch.setattr(file_layer, "publish", publish_or_die)
    monkeypatch.setattr(file_layer, "remove", remove_or_die)


def test_a_kill_between_any_two_steps_is_healed(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampled inside the plan, whose steps are alike; every step of shards and manifest."""
    expected = digests(whole)
    plan_steps = sum(not name.startswith("teachers/hrnet/") for name in expected) + 5
    step, healed = 0, 0
    while True:
        path = tmp_path / f"store{step}"
        with monkeypatch.context() as patch:
            kill_at(patch, step)
            try:
                run(path)
            except Kill:
                healed += 1
            else:
                break
        run(path)
        assert digests(path) == expected, step
        step += 9 if step < plan_steps - 9 else 1
    assert healed > 30


def test_resuming_after_half_the_shards_writes_the_bytes_of_an_uninterrupted_run(
    whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    writer = create(path)
    writer.write_shard(2, *make_shard(writer.shard_rows(2)))
    again = TeacherStoreWriter.resume(path, IDENTITY, RECIPE)
    assert again.pending_shards() == [0, 1]
    assert again.threshold == 0.01
    write_rest(again)
    assert digests(path) == digests(whole)


@pytest.mark.parametrize("name", ["heatmaps", "outputs", "heatmap_crc32c", "status"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_resuming_writes_a_damaged_shard_again(
    whole: Path, tmp_path: Path, name: str, damage: str
) -> None:
    path = tmp_path / "store"
    writer = create(path)
    for shard in range(3):
        writer.write_shard(shard, *make_shard(writer.shard_rows(shard)))
    file = next((path / "teachers/hrnet" / name).glob("c.1*"))
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    if damage == "delete":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flip" else data[:-1])
    again = TeacherStoreWriter.resume(path, IDENTITY, RECIPE)
    assert again.pending_shards() == [1]
    write_rest(again)
    assert digests(path) == digests(whole)


def test_a_torn_or_foreign_receipt_makes_its_shard_pending(tmp_path: Path) -> None:
    writer = create(tmp_path)
    for shard in range(3):
        writer.write_shard(shard, *make_shard(writer.shard_rows(shard)))
    receipts = sorted((tmp_path / "teachers/hrnet/manifest").glob("*.json"))
    assert [file.name for file in receipts] == ["000000.json", "000001.json", "000002.json"]
    receipts[0].write_bytes(receipts[1].read_bytes())
    receipts[2].write_bytes(receipts[2].read_bytes()[:-9])
    assert TeacherStoreWriter.resume(tmp_path, IDENTITY, RECIPE).pending_shards() == [0, 2]


def test_a_kill_while_a_shard_is_replaced_leaves_it_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = create(tmp_path)
    heatmaps, outputs, status = make_shard(range(0, 3))
    writer.write_shard(0, heatmaps, outputs, status)
    with monkeypatch.context() as patch:
        kill_at(patch, 2)  # after the receipt's removal and the first file
        with pytest.raises(Kill):
            writer.write_shard(0, 255 - heatmaps, outputs, status)
    assert writer.pending_shards() == [0, 1, 2]


def test_a_receipt_tells_rows_lengths_digests_and_status(tmp_path: Path) -> None:
    writer = create(tmp_path)
    receipt = writer.write_shard(1, *make_shard(range(3, 6)))
    assert (receipt.rows, receipt.status_counts) == ((3, 6), (0, 5, 0, 1))
    file = tmp_path / "teachers/hrnet/heatmaps/c.1.0.0.0.0"
    assert receipt.lengths[0] == file.stat().st_size
    assert receipt.sha256[0] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_finishing_early_says_how_many_shards_are_there(tmp_path: Path) -> None:
    writer = create(tmp_path)
    writer.write_shard(0, *make_shard(range(0, 3)))
    with pytest.raises(IncompleteError, match=r"has 1 of 3 shards, .* missing one is 1; .*--res"):
        writer.finish()


def test_a_complete_store_takes_no_shard_and_finishing_again_changes_nothing(whole: Path) -> None:
    before = digests(whole)
    writer = TeacherStoreWriter.resume(whole, IDENTITY, RECIPE)
    assert writer.pending_shards() == []
    with pytest.raises(StoreError, match="is complete and shard 0 cannot be written"):
        writer.write_shard(0, *make_shard(range(0, 3)))
    assert writer.finish() == writer.entry.content
    assert digests(whole) == before


def test_a_writer_can_be_sent_to_another_process(whole: Path, tmp_path: Path) -> None:
    writer = create(tmp_path)
    worker = pickle.loads(pickle.dumps(writer))
    for shard in range(3):
        worker.write_shard(shard, *make_shard(worker.shard_rows(shard)))
    assert writer.pending_shards() == []
    writer.finish()
    assert digests(tmp_path) == digests(whole)


def test_a_path_that_is_taken_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds a store; use --resume, or choose another path"):
        create(whole)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds notes\.txt; choose another path"):
        create(tmp_path)
    with pytest.raises(StoreError, match="is a file"):
        create(tmp_path / "notes.txt")
    with pytest.raises(IncompleteError, match=r"no zarr\.json: .* without --resume"):
        TeacherStoreWriter.resume(tmp_path, IDENTITY, RECIPE)


def test_resuming_with_another_teacher_names_field_values_and_way_out(whole: Path) -> None:
    other = {"teacher": IDENTITY["teacher"] | {"frame": "udp"}}
    message = r"'teacher.frame' differs: the store has \"msra\", now it is \"udp\"; .*another path"
    with pytest.raises(IdentityError, match=message):
        TeacherStoreWriter.resume(whole, other, RECIPE)


def test_resuming_with_other_people_or_views_is_refused(whole: Path) -> None:
    people, views = make_people(), make_views()
    same = IDENTITY | {"people": people_identity(people, DIGESTS), "views": views_identity(views)}
    TeacherStoreWriter.resume(whole, same, RECIPE)
    people.bbox_xywh[0, 0] += 1
    other = same | {"people": people_identity(people, DIGESTS)}
    with pytest.raises(IdentityError, match=r"'people.arrays.bbox_xywh' differs"):
        TeacherStoreWriter.resume(whole, other, RECIPE)


def test_resuming_under_another_recipe_is_refused_unless_allowed(whole: Path) -> None:
    other = RECIPE | {"batch_size": 64}
    with pytest.raises(IdentityError, match=r"'execution_recipe.batch_size' .* 32, now it is 64"):
        TeacherStoreWriter.resume(whole, IDENTITY, other)
    TeacherStoreWriter.resume(whole, IDENTITY, other, allow_other_recipe=True)


def test_an_identity_that_contradicts_the_people_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"'people.num_instances' differs"):
        create(tmp_path, identity=IDENTITY | {"people": {"num_instances": 3}})


def test_views_must_mirror_exactly_where_they_say_so(tmp_path: Path) -> None:
    views = make_views()
    views.is_mirrored[2, 1] = False
    with pytest.raises(SchemaError, match=r"instance 2, view 1 has determinant -0\.375"):
        create(tmp_path, views=views)
    assert walk_files(tmp_path) == []


def test_an_unlabelled_keypoint_must_have_no_position(tmp_path: Path) -> None:
    people = make_people()
    people.keypoints[3, 1] = (5, 5, 0)
    with pytest.raises(SchemaError, match="instance 3, keypoint 1 is"):
        create(tmp_path, people=people)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heatmaps": np.zeros((2, 2, 3, 8, 6), np.uint8)}, r"heatmaps must be uint8 \(3, 2, 3"),
        ({"status": np.zeros((3, 2), np.uint8)}, r"must be 1, 2 or 3, got \[0\]"),
        ({"outputs": np.full((3, 2, 3, 4), np.nan, np.float32)}, "row 0, view 0 is not"),
        ({"outputs": np.full((3, 2, 3, 4), -1, np.float32)}, "scales of at least 0"),
    ],
)
def test_a_shard_that_contradicts_itself_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    writer = create(tmp_path)
    shard: dict[str, Any] = dict(
        zip(("heatmaps", "outputs", "status"), make_shard(range(0, 3)), strict=True)
    )
    with pytest.raises(SchemaError, match=message):
        writer.write_shard(0, **(shard | change))
    assert writer.pending_shards() == [0, 1, 2]
