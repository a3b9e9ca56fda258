"""What a store costs the processes of a training: opening, memory of a worker, time in a loader."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ParamSpec, TypeVar

import cv2
import numpy as np

from pipeline.benchmarks.drawn_views import DrawnViews, draw_batches
from pipeline.benchmarks.figures import LoaderCost, StoreCost
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.data import StoreViewDataset
from pipeline.training.images import TrainingImages
from pipeline.training.view_order import ViewBatch

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def in_fresh_process(
    function: Callable[_Parameters, _Result],
    *arguments: _Parameters.args,
    **named: _Parameters.kwargs,
) -> _Result:
    """Call a function of a module in a new Python process and return what it returns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
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


def _work(store: TeacherStore, drawn: DrawnViews, answer: Connection) -> None:
    num_batches, batch_size = len(drawn.batches), len(drawn.batches[0][0])
    shape = (batch_size, store.people.skeleton.num_keypoints, *store.heatmap_size_hw)
    out = np.zeros(shape, store.heatmap_dtype)
    num_timed = max(1, num_batches // 10)
    start = time.process_time()
    for place, batch in enumerate(drawn.batches):
        if place == num_batches - num_timed:
            start = time.process_time()
        store.read(*batch, out=out)
    spent = time.process_time() - start
    answer.send((private_megabytes(), num_timed * batch_size / spent))


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
        in_fresh_process(_load, path, images, num_batches, batch_size) for _ in range(num_processes)
    ]
    without = float(np.median([seconds for seconds, _ in found]))
    return LoaderCost(num_batches, batch_size, without, tuple(ratio for _, ratio in found))


def _load(path: Path, images: Path, num_batches: int, batch_size: int) -> tuple[float, float]:
    """Return the seconds of a batch without targets, and how many times as long one takes with.

    Raises:
        StoreError: the store cannot be read.
        ImageError: an image cannot be decoded, or is not the one the store was made from.
    """
    cv2.setNumThreads(0)
    store = TeacherStore.open(path)
    drawn = draw_batches(store, num_batches, batch_size)
    datasets = {
        reads: StoreViewDataset(
            store,
            TrainingImages(store.people, images, store.image_sha256),
            store.input_size_hw,
            frozenset({"heatmaps"} if reads else ()),
        )
        for reads in (False, True)
    }
    pairs = []
    for turn in range(9):
        for place, (rows, views) in enumerate(drawn.batches):
            spent = {}
            for reads in (False, True) if (turn + place) % 2 else (True, False):
                start = time.process_time()
                datasets[reads][ViewBatch(rows, views)]
                spent[reads] = time.process_time() - start
            if turn:  # the first reads images and store into the page cache
                pairs.append((spent[False], spent[True]))
    without, with_targets = np.transpose(pairs)
    return float(np.median(without)), float(np.median(with_targets / without))
