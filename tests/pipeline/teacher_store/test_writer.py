"""A store is written whole, refusing what contradicts itself."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.storage.files import temporary_of, walk_files
from store_schemas.errors import IncompleteError, SchemaError, StoreError

pytestmark = pytest.mark.usefixtures("quick_disk")


def test_two_runs_write_the_same_bytes(factory: Any, whole: Path, tmp_path: Path) -> None:
    factory.write_rest(factory.create(tmp_path / "store"))
    assert factory.digests(tmp_path / "store") == factory.digests(whole)


def test_a_complete_store_holds_nothing_that_is_not_zarr(whole: Path) -> None:
    for path in walk_files(whole):
        assert path.name == "zarr.json" or path.name.startswith("c."), path
        assert (path.parent / "zarr.json").is_file()
    root = json.loads((whole / "zarr.json").read_bytes())
    assert root["attributes"]["schema"] == "1"
    assert root["attributes"]["teachers"]["hrnet"]["complete"] is True


def test_a_receipt_tells_rows_lengths_digests_and_status(factory: Any, tmp_path: Path) -> None:
    writer = factory.create(tmp_path)
    receipt = factory.write(writer, 1)
    assert (receipt.rows, receipt.status_counts) == ((3, 6), (0, 5, 0, 1))
    file = tmp_path / "teachers/hrnet/heatmaps/c.1.0.0.0.0"
    assert receipt.lengths[0] == file.stat().st_size
    assert receipt.sha256[0] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_finishing_early_says_how_many_shards_are_there(factory: Any, tmp_path: Path) -> None:
    writer = factory.create(tmp_path)
    factory.write(writer, 0)
    with pytest.raises(IncompleteError, match=r"has 1 of 3 shards, .* missing one is 1; .*--res"):
        factory.finish(writer)


def test_a_complete_store_takes_no_shard_and_finishing_again_changes_nothing(
    factory: Any, whole: Path
) -> None:
    before = factory.digests(whole)
    writer = factory.resume(whole)
    assert writer.pending_shards() == []
    with pytest.raises(StoreError, match="is complete and shard 0 cannot be written"):
        factory.write(writer, 0)
    assert factory.finish(writer) == writer.entry.content_sha256
    assert factory.digests(whole) == before


def test_a_writer_can_be_sent_to_another_process(factory: Any, whole: Path, tmp_path: Path) -> None:
    writer = factory.create(tmp_path)
    worker = pickle.loads(pickle.dumps(writer))
    for shard in range(3):
        factory.write(worker, shard)
    assert writer.pending_shards() == []
    factory.finish(writer)
    assert factory.digests(tmp_path) == factory.digests(whole)


def test_what_a_worker_was_writing_as_it_was_killed_is_no_part_of_the_store(
    factory: Any, whole: Path, tmp_path: Path
) -> None:
    writer = factory.create(tmp_path)
    factory.write(writer, 0)
    temporary_of(tmp_path / "teachers/hrnet/heatmaps/c.0.0.0.0.0").write_bytes(b"torn")
    factory.write_rest(writer)
    assert factory.digests(tmp_path) == factory.digests(whole)


def test_a_path_that_is_taken_is_refused(factory: Any, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match="has a teacher 'hrnet'; use --resume, or choose another path"
    ):
        factory.create(whole)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds notes\.txt; choose another path"):
        factory.create(tmp_path)
    with pytest.raises(StoreError, match="is a file"):
        factory.create(tmp_path / "notes.txt")
    with pytest.raises(StoreError, match="must be a folder"):
        factory.create(tmp_path / "notes.txt" / "store")
    with pytest.raises(IncompleteError, match=r"no zarr\.json: .* without --resume"):
        factory.resume(tmp_path)


def test_views_must_mirror_exactly_where_they_say_so(factory: Any, tmp_path: Path) -> None:
    views = factory.views()
    views.is_mirrored[2, 1] = False
    with pytest.raises(SchemaError, match=r"instance 2, view 1 has determinant -0\.375"):
        factory.create(tmp_path, views=views)
    assert factory.digests(tmp_path) == {}


def test_an_unlabelled_keypoint_must_have_no_position(factory: Any, tmp_path: Path) -> None:
    people = factory.people()
    people.keypoints[3, 1] = (5, 5, 0)
    with pytest.raises(SchemaError, match="instance 3, keypoint 1 is"):
        factory.create(tmp_path, people=people)


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
    factory: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    writer = factory.create(tmp_path)
    shard: dict[str, Any] = dict(
        zip(("heatmaps", "outputs", "status"), factory.shard(range(0, 3)), strict=True)
    )
    with pytest.raises(SchemaError, match=message):
        writer.write_shard(0, **(shard | change), images_sha256=factory.images_of(range(0, 3)))
    assert writer.pending_shards() == [0, 1, 2]
