"""Overlapping decoding, teacher and publishing changes no byte, loses no error, runs not ahead."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.caching.breakdown import ACTIVITIES, sum_breakdowns
from pipeline.caching.shard_worker import read_writers_plan
from pipeline.coco import image_files
from pipeline.coco.image_files import decode_image, sha256_file
from pipeline.frames import crop_stream
from pipeline.frames.crops import warp_crop
from pipeline.teacher_store.writer import TeacherStoreWriter
from pipeline.teachers import Teacher
from store_schemas import heatmap_codec
from store_schemas.errors import StorageError
from store_schemas.heatmap_codec import (
    is_measured,
    measure_codec_error,
    quantise_heatmaps,
    sum_codec_errors,
)
from store_schemas.manifest import digest_of_images
from store_schemas.teacher_store import Status

SIZE_HW, CELLS_HW = (32, 24), (8, 6)
NUM_KEYPOINTS, NUM_VIEWS, ROWS, BATCH = 5, 3, 2, 4
IMAGES = (0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6)
"""As in ``conftest``: the image of each person."""


def write_one_after_another(caching: Any, writer: TeacherStoreWriter, shard: int) -> None:
    """Write a shard in the plainest way: image by image, batch by batch, then publish."""
    rows, affines = writer.shard_rows(shard), read_writers_plan(writer).views.image_to_crop
    people, teacher = caching.people, caching.teacher
    order = sorted(rows, key=lambda row: int(people.image_index[row]))
    places = [(row, view) for row in order for view in range(NUM_VIEWS)]
    heatmaps = np.zeros((len(rows), NUM_VIEWS, NUM_KEYPOINTS, *CELLS_HW), np.uint8)
    outputs = np.zeros((len(rows), NUM_VIEWS, NUM_KEYPOINTS, 4), np.float32)
    errors = []
    for start in range(0, len(places), BATCH):
        crops = [
            warp_crop(
                decode_image(caching.path(people.image_name[people.image_index[row]])),
                affines[row, view],
                SIZE_HW,
            )
            for row, view in places[start : start + BATCH]
        ]
        seen = teacher.predict_and_decode(np.stack(crops), people.skeleton.flip_indices)
        stored, scale = quantise_heatmaps(seen.heatmaps, writer.threshold)
        for i, (row, view) in enumerate(places[start : start + BATCH]):
            heatmaps[row - rows.start, view] = stored[i]
            one = np.concatenate(
                [scale[i][:, None], seen.confidences[i][:, None], seen.keypoints[i]], axis=1
            )
            outputs[row - rows.start, view] = one
        measured = [i for i, p in enumerate(places[start : start + BATCH]) if is_measured(p[0])]
        errors.append(
            measure_codec_error(seen.heatmaps[measured], stored[measured], scale[measured])
        )
    status = np.full(heatmaps.shape[:2], Status.OK, np.uint8)
    images = digest_of_images(caching.image_sha256, people.image_index[rows.start : rows.stop])
    writer.write_shard(shard, heatmaps, outputs, status, images, sum_codec_errors(errors))


def test_overlapped_shards_are_byte_for_byte_those_written_one_after_another(
    caching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The codec's error too, whose sum depends on the order of batches."""
    monkeypatch.setattr(heatmap_codec, "MEASURED_ROWS", 2)
    assert sum(is_measured(row) for row in range(len(IMAGES))) > 3
    serial, overlapped = caching.writer("serial.zarr"), caching.writer()
    for shard in range(serial.num_shards):
        write_one_after_another(caching, serial, shard)
    outcomes = list(caching.worker(overlapped).write_shards(range(overlapped.num_shards)))
    assert [outcome.shard for outcome in outcomes] == list(range(6))
    assert caching.digests() == caching.digests("serial.zarr")


def test_one_worker_may_write_shards_in_several_threads(caching: Any) -> None:
    together, alone = caching.writer("together.zarr"), caching.writer()
    list(caching.worker(alone).write_shards(range(6)))
    worker = caching.worker(together)
    threads = [
        threading.Thread(target=lambda s=shards: [worker.write_shard(shard) for shard in s])
        for shards in ((0, 3, 4), (5, 1, 2))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caching.digests("together.zarr") == caching.digests()


@pytest.mark.parametrize("num_cores", [1, 2, 3])
def test_batches_predicted_at_a_time_change_no_byte(
    caching: Any, monkeypatch: pytest.MonkeyPatch, num_cores: int
) -> None:
    """As many batches as cores wait for one another, and the very first one for a later one."""
    predict, shown = Teacher.predict, list[NDArray[np.uint8]]()
    looking, together = list[int](), list[int]()
    met, overtaken = threading.Barrier(num_cores), threading.Event()

    def noted(self: Teacher, crops: NDArray[np.uint8], *more: Any, **options: Any) -> Any:
        shown.append(crops)
        return predict(self, crops, *more, **options)

    def overtaking(self: Teacher, crops: NDArray[np.uint8], *more: Any, **options: Any) -> Any:
        looking.append(1)
        together.append(len(looking))
        if len(together) <= num_cores:
            met.wait(20)
        is_first = np.array_equal(crops, shown[0])
        if is_first and num_cores > 1:
            assert overtaken.wait(20), "nobody came"
        prediction = predict(self, crops, *more, **options)
        if not is_first:
            overtaken.set()
        looking.pop()
        return prediction

    monkeypatch.setattr(Teacher, "predict", noted)
    list(caching.worker(caching.writer()).write_shards(range(6)))
    monkeypatch.setattr(Teacher, "predict", overtaking)
    monkeypatch.setattr(caching.teacher.network, "num_threads", 1)
    worker = caching.worker(caching.writer("together.zarr"), num_threads=num_cores)
    list(worker.write_shards(range(6)))
    assert max(together) == num_cores
    assert caching.digests("together.zarr") == caching.digests()


def hold_publishing(
    monkeypatch: pytest.MonkeyPatch, shard: int, event: threading.Event
) -> list[int]:
    """Let a shard's publishing wait for an event; returns the shards that are published, live."""
    write, published = TeacherStoreWriter.write_shard, list[int]()

    def held(self: TeacherStoreWriter, number: int, *arrays: Any, **more: Any) -> Any:
        if number == shard:
            assert event.wait(20), "nobody came"
        receipt = write(self, number, *arrays, **more)
        published.append(number)
        return receipt

    monkeypatch.setattr(TeacherStoreWriter, "write_shard", held)
    return published


def test_the_teacher_and_the_decoders_go_on_while_a_shard_is_published(
    caching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shard 0 waits until all of shard 1 is predicted; of those behind, only so many batches."""
    event, looks, seen_by_then = threading.Event(), list[int](), list[int]()
    predict = Teacher.predict

    def go_on() -> None:
        seen_by_then.append(len(looks))
        event.set()

    def seen(self: Teacher, crops: NDArray[np.uint8], *more: Any, **options: Any) -> Any:
        looks.append(len(crops))
        if len(looks) == 5:  # two batches a shard
            threading.Timer(0.3, go_on).start()
        return predict(self, crops, *more, **options)

    monkeypatch.setattr(Teacher, "predict", seen)
    published = hold_publishing(monkeypatch, 0, event)
    list(caching.worker(caching.writer()).write_shards(range(6)))
    assert 5 <= seen_by_then[0] <= 4 + 4  # one batch at a time and three threads
    assert looks == [4, 2] * 5 + [3]
    assert published == list(range(6))


def test_an_error_of_the_background_surfaces_and_no_later_shard_is_published(
    caching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = TeacherStoreWriter.write_shard

    def full(self: TeacherStoreWriter, shard: int, *arrays: Any, **more: Any) -> Any:
        if shard == 2:
            raise StorageError("the disk is full")
        return write(self, shard, *arrays, **more)

    monkeypatch.setattr(TeacherStoreWriter, "write_shard", full)
    writer = caching.writer()
    with pytest.raises(StorageError, match="the disk is full"):
        list(caching.worker(writer).write_shards(range(6)))
    assert writer.pending_shards() == [2, 3, 4, 5]
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("decode", "publish"))]


def test_an_error_at_the_teacher_leaves_the_shard_before_whole_and_names_its_fault(
    caching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = 0

    def stop_in_shard_one(count: int) -> None:
        nonlocal views
        views += count
        if views > ROWS * NUM_VIEWS:
            raise KeyboardInterrupt

    writer = caching.writer()
    with pytest.raises(KeyboardInterrupt):
        list(caching.worker(writer).write_shards(range(6), stop_in_shard_one))
    assert writer.pending_shards() == [1, 2, 3, 4, 5]

    def broken(self: TeacherStoreWriter, *_: Any, **__: Any) -> Any:
        time.sleep(0.3)
        raise StorageError("the disk is full")

    monkeypatch.setattr(TeacherStoreWriter, "write_shard", broken)
    views = 0
    with pytest.raises(KeyboardInterrupt) as stopped:
        list(caching.worker(writer).write_shards(range(6), stop_in_shard_one))
    assert stopped.value.__notes__ == [
        "the shard before could not be published either: the disk is full"
    ]


def test_a_stop_finishes_the_predicted_shards_and_begins_none(caching: Any) -> None:
    writer = caching.writer()
    asked: list[bool] = []

    def is_stopping() -> bool:
        asked.append(True)
        return len(asked) == 2

    outcomes = list(caching.worker(writer).write_shards(range(6), is_stopping=is_stopping))
    assert [outcome.shard for outcome in outcomes] == [0, 1]
    assert writer.pending_shards() == [2, 3, 4, 5]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_an_image_that_changed_since_the_plan_is_bad_and_says_so(
    caching: Any, skip_bad: bool
) -> None:
    """It decodes well: only the digest of the very bytes that are decoded can tell."""
    writer = caching.writer()
    name = caching.people.image_name[3]
    planned = sha256_file(caching.path(name))
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(caching.path(name), "png")
    found = sha256_file(caching.path(name))
    outcomes = list(caching.worker(writer, skip_bad=skip_bad).write_shards(range(6)))
    bad = [outcome for outcome in outcomes if outcome.bad_images]
    assert [outcome.shard for outcome in bad] == [2]  # person 5 alone stands in image 3
    (image,) = bad[0].bad_images
    assert (image.name, image.instance_ids) == (name, (105,))
    assert (
        f"has changed since the plan: expected sha256 {planned[:16]}, got {found[:16]}; put the "
        "old file back, or accept this one with --resume --accept-mended-images"
    ) in image.reason
    assert writer.pending_shards() == ([] if skip_bad else [2])
    assert (bad[0].receipt is None) == (not skip_bad)


def test_each_image_is_read_once(caching: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digested and decoded from the same bytes; twice only where two shards share an image."""
    read: list[str] = []
    original: Callable[[Path], Any] = image_files.read_image_bytes

    def counted(path: Path) -> Any:
        read.append(path.name)
        return original(path)

    monkeypatch.setattr(crop_stream, "read_image_bytes", counted)
    writer = caching.writer()
    list(caching.worker(writer).write_shards(range(6)))
    per_shard = [
        {caching.people.image_name[IMAGES[row]] for row in writer.shard_rows(shard)}
        for shard in range(6)
    ]
    assert sorted(read) == sorted(name for names in per_shard for name in names)


def test_the_breakdown_accounts_for_all_time_of_all_cores(caching: Any) -> None:
    worker = caching.worker(caching.writer())
    started = time.perf_counter()
    outcomes = list(worker.write_shards(range(6)))
    wall = time.perf_counter() - started
    total = sum_breakdowns(outcome.breakdown for outcome in outcomes)
    assert total.wall_seconds == pytest.approx(wall, abs=0.3)
    assert sum(total.seconds(activity) for activity in ACTIVITIES) >= 0.99 * total.core_seconds
    for activity in ("decode", "warp", "encode", "write"):
        assert total.seconds(activity) > 0
    assert 0 < total.teacher_wall_seconds <= total.wall_seconds
