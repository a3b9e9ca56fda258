"""What a store of any size costs a training: opening, memory of a worker, time in a loader."""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.benchmarks.figures import LoaderCost, StoreCost, seconds_in_turns
from pipeline.benchmarks.reading import DrawnViews, draw_batches, new_batch
from pipeline.coco.people import People
from pipeline.errors import ConfigError, DistilError
from pipeline.storage.files import make_folder
from pipeline.storage.folder import LocalFolder
from pipeline.teacher_store.plan import (
    StoreLayout,
    layout_of,
    people_identity,
    plan_arrays,
    read_plan,
    views_identity,
)
from pipeline.teacher_store.publishing import publish_manifest, publish_plan, publish_root
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.images import TrainingImages
from pipeline.training.settings import TeacherField
from pipeline.training.store_data import ReplayedViewDataset
from pipeline.training.view_order import ViewBatch
from pipeline.wording import counted
from store_schemas.manifest import MANIFEST_ARRAYS, Manifest, read_manifest
from store_schemas.root_metadata import read_entry

FRESH: BaseContext = multiprocessing.get_context("spawn")
"""Starts processes that inherit nothing of this one."""


def multiply_store(source: Path, target: Path, num_views: int) -> None:
    """Write a complete store of about ``num_views`` views, at least one shard.

    Its people, views and manifest are valid, and its shards are hard links to whole ones of the
    source: it is opened and read like any other store, and takes the disk space of the source.

    Raises:
        DistilError: the source has no whole shard, or lies on another file system.
        StoreError: the source cannot be read, or something else is at the target.
    """
    folder = LocalFolder(source)
    entry = read_entry(folder, None)
    layout = layout_of(folder, entry)
    plan, manifest = read_plan(layout), read_manifest(layout, entry)
    size = layout.dimensions
    num_whole = size.num_instances // size.rows_per_shard
    if not num_whole:
        raise DistilError(
            f"{source} must have at least one whole shard of {size.rows_per_shard} people, got "
            f"{counted(size.num_instances, 'person')}; cache more people"
        )
    num_shards = max(1, round(num_views / (size.rows_per_shard * size.num_views)))
    shards = np.arange(num_shards) % num_whole
    rows = (shards[:, None] * size.rows_per_shard + np.arange(size.rows_per_shard)).ravel()
    people = _people_of_rows(plan.people, rows)
    views = replace(
        plan.views,
        image_to_crop=plan.views.image_to_crop[rows],
        is_mirrored=plan.views.is_mirrored[rows],
    )
    identity = replace(entry.identity, people=people_identity(people), views=views_identity(views))
    copied = replace(entry, identity=identity, content_sha256=None)
    repeated = layout_of(LocalFolder(target), copied)
    publish_plan(repeated, copied, {}, plan_arrays(people, plan.image_sha256, views))
    _link_shards(layout, repeated, source, target, shards.tolist())
    columns = {name: getattr(manifest, name)[shards] for name in MANIFEST_ARRAYS}
    starts = np.arange(num_shards) * size.rows_per_shard
    columns["rows"] = np.stack([starts, starts + size.rows_per_shard], axis=1)
    whole = Manifest(np.ones(num_shards, np.bool_), **columns)
    publish_manifest(repeated, whole)
    publish_root(
        repeated.folder, {entry.teacher: replace(copied, content_sha256=whole.content_sha256)}
    )


def _people_of_rows(people: People, rows: NDArray[np.int64]) -> People:
    return replace(
        people,
        instance_id=np.arange(len(rows)),  # unique: a row may stand here several times
        image_index=people.image_index[rows],
        bbox_xywh=people.bbox_xywh[rows],
        area=people.area[rows],
        keypoints=people.keypoints[rows],
    )


def _link_shards(
    layout: StoreLayout, repeated: StoreLayout, source: Path, target: Path, shards: list[int]
) -> None:
    for spec in repeated.shard_specs.values():
        make_folder(target / spec.path)
    for place, shard in enumerate(shards):
        there, here = layout.shard_files(shard), repeated.shard_files(place)
        for name, file in here.items():
            try:
                os.link(source / there[name], target / file)
            except OSError as error:
                raise DistilError(
                    f"{source / there[name]} must be linked to {target / file}, got: "
                    f"{error.strerror}; give an --output on the store's file system"
                ) from error


_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Source = Literal["images", "crops"]


@dataclass(frozen=True)
class CropLoading:
    """Processor seconds of one batch in one worker, medians over interleaved turns."""

    batch_size: int
    images: float
    """Seconds from images, without targets."""
    images_with_targets: float
    crops: float
    """Seconds from stored crops, without targets."""
    crops_with_targets: float

    @property
    def speed_up(self) -> float:
        """How many times faster a worker with targets is from crops than from images."""
        return self.images_with_targets / self.crops_with_targets

    @property
    def share_of_targets(self) -> float:
        """What targets add to a worker that decodes crops, in parts of its time without."""
        return self.crops_with_targets / self.crops - 1


def in_fresh_process(
    function: Callable[_Parameters, _Result],
    *arguments: _Parameters.args,
    **named: _Parameters.kwargs,
) -> _Result:
    """Call a function of a module in a new Python process and return what it returns."""
    with ProcessPoolExecutor(1, mp_context=FRESH) as pool:
        return pool.submit(function, *arguments, **named).result()


def measure_store_cost(path: Path, num_batches: int, batch_size: int = 64) -> StoreCost:
    """Open a store, and let a forked worker read; call it in a fresh process.

    Raises:
        StoreError: the store cannot be read.
    """
    TeacherStore.open(path).close()  # fills the page cache
    clock, processor = time.perf_counter(), time.process_time()
    store = TeacherStore.open(path)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    drawn = draw_batches(store, num_batches, batch_size)
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=_work, args=(store, drawn, theirs))
    worker.start()
    theirs.close()
    private, speed = ours.recv()
    worker.join()
    return StoreCost(int(store.status.size), clock, processor, private, speed)


def private_megabytes() -> float:
    """Return the memory that only this process uses; Linux, elsewhere not a number."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except FileNotFoundError:
        return float("nan")
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return sum(kilobytes) / 1024


def measure_loader(
    path: Path, images: Path, num_processes: int, num_batches: int = 12, batch_size: int = 32
) -> LoaderCost:
    """Load the same batches with and without targets in fresh processes, one after the other.

    Raises:
        StoreError: the store cannot be read.
        ImageError: an image cannot be decoded, or is not the one the store was made from.
    """
    found = [
        in_fresh_process(_loading_seconds, path, images, ["images"], num_batches, batch_size, 8)
        for _ in range(num_processes)
    ]
    without = [float(np.median(seconds["images", False])) for seconds in found]
    ratios = tuple(float(np.median(s["images", True] / s["images", False])) for s in found)
    return LoaderCost(num_batches, batch_size, float(np.median(without)), ratios)


def measure_crop_loading(
    path: Path, images: Path, num_batches: int = 8, batch_size: int = 32, num_rounds: int = 3
) -> CropLoading:
    """Load the same batches from images and from crops, with and without targets, in turns.

    Call it in a fresh process.

    Raises:
        ConfigError: the store has no crops.
        StoreError: the store cannot be read.
        ImageError: an image cannot be decoded, or is not the one the store was made from.
    """
    seconds = _loading_seconds(
        path, images, ["images", "crops"], num_batches, batch_size, num_rounds
    )
    medians = {way: float(np.median(found)) for way, found in seconds.items()}
    return CropLoading(
        batch_size,
        medians["images", False],
        medians["images", True],
        medians["crops", False],
        medians["crops", True],
    )


def _work(store: TeacherStore, drawn: DrawnViews, answer: Connection) -> None:
    num_batches, batch_size = len(drawn.batches), len(drawn.batches[0][0])
    out = new_batch(store, batch_size)
    num_timed = max(1, num_batches // 10)
    start = time.process_time()
    for place, batch in enumerate(drawn.batches):
        if place == num_batches - num_timed:
            start = time.process_time()
        store.read(*batch, out=out)
    spent = time.process_time() - start
    answer.send((private_megabytes(), num_timed * batch_size / spent))


def _loading_seconds(
    path: Path,
    image_folder: Path,
    sources: Sequence[_Source],
    num_batches: int,
    batch_size: int,
    num_rounds: int,
) -> dict[tuple[_Source, bool], NDArray[np.float64]]:
    """Return (num_rounds, num_batches) seconds by source, without targets and with them."""
    cv2.setNumThreads(0)
    store = TeacherStore.open(path)
    if "crops" in sources and store.optional.crops is None:
        raise ConfigError(f"{path} must hold crops; write a store with cache-teacher --crops")
    drawn = draw_batches(store, num_batches, batch_size)

    def loading(source: _Source, with_targets: bool) -> Callable[[int], object]:
        images = TrainingImages(store.people, image_folder, store.image_sha256)
        files = images if source == "images" else None
        reads = frozenset[TeacherField]({"heatmaps"} if with_targets else ())
        dataset = ReplayedViewDataset(store, store.people, files, store.input_size_hw, reads)
        return lambda batch: dataset[ViewBatch(*drawn.batches[batch])]

    ways = {
        (source, with_targets): loading(source, with_targets)
        for source in sources
        for with_targets in (False, True)
    }
    return seconds_in_turns(ways, range(num_batches), num_rounds)
