"""How well a loader keeps a training busy, and what an epoch costs with ever more people.

A training of two loader workers is timed by the clock; beside it stand the processor times of a
step and of a loaded crop, which say what it comes to on cores that are free.
"""

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import torch

from pipeline.benchmarks.processes import in_fresh_process, multiply_store, private_megabytes
from pipeline.benchmarks.steps import learner_of, student_and_info
from pipeline.errors import ConfigError
from pipeline.settings import Precision
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.data import BatchLoader
from pipeline.training.settings import LossConfig, ReplayedViewSettings
from pipeline.training.store_sources import open_store_views
from pipeline.training.stored_people import StoredPeople
from pipeline.training.view_order import ViewBatch, ViewOrder

LOSS = LossConfig()
"""The terms whose targets are loaded: those of heatmaps, and keypoints."""
_FROM_CROPS = ReplayedViewSettings(from_crops=True, view_order="shuffled")


@dataclass(frozen=True)
class BusyDevice:
    """A training from stored crops, over steps after its first ones."""

    num_workers: int
    batch_size: int
    busy_share: float
    """Share of the time that the training did not wait for data."""
    step_seconds: float
    """Processor time of a crop's share of a step."""
    load_seconds: float
    """Processor time of loading a crop with its targets, in one worker."""

    @property
    def share_on_free_cores(self) -> float:
        """Share of the time that the device is busy if each process has a core of its own."""
        return min(1.0, self.num_workers * self.step_seconds / self.load_seconds)


@dataclass(frozen=True)
class EpochCost:
    """What an epoch of a store costs, in a worker forked from a process that opened it."""

    num_people: int
    open_seconds: float
    """Processor time of opening the store and of drawing the order of the epoch."""
    first_seconds: float
    """Processor time of the first view of every shard, which is compared whole."""
    seconds_per_person: float
    """Processor time of every further person."""
    worker_mb: float
    """Private memory of the worker at the end."""

    @property
    def epoch_seconds(self) -> float:
        """Processor time of an epoch."""
        return self.open_seconds + self.first_seconds + self.num_people * self.seconds_per_person


def measure_busy_device(
    store: Path,
    student: str,
    batch_size: int,
    num_workers: int,
    num_steps: int,
    device: torch.device,
    precision: Precision,
) -> BusyDevice:
    """Train from the crops of a store, and measure how long the training waits for data.

    Raises:
        StoreError: the store cannot be read.
        ConfigError: it holds no crops or no augmented views, or the student does not fit them.
    """
    views = _open(store)
    size_hw = student_and_info(student)[0].input_size_hw
    dataset, order = views.dataset(size_hw), views.order(batch_size, seed=0)
    loader = BatchLoader(dataset, order, num_workers, device, views.start_method)
    learner = learner_of(student, LOSS, batch_size, device, precision, None)
    batches = chain.from_iterable(map(loader.batches_of_epoch, count()))
    # The batches that workers load before the first step would count as loaded in no time.
    num_ahead = 4 * num_workers + 1
    for step, batch in enumerate(islice(batches, num_ahead)):
        learner.step(batch, step)
    began, processor, waited = time.perf_counter(), time.process_time(), 0.0
    for step in range(num_steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        learner.step(batch, step)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    load_seconds = in_fresh_process(_loading_seconds, store, student, batch_size)
    step_seconds = processor if device.type == "cpu" else seconds - waited
    views_done = num_steps * batch_size
    return BusyDevice(
        num_workers, batch_size, 1 - waited / seconds, step_seconds / views_done, load_seconds
    )


def measure_epochs(
    store: Path, sizes: tuple[int, ...], student: str, batch_size: int, scratch: Path
) -> Iterator[EpochCost]:
    """Multiply a store by hard links to each number of people, and load an epoch of it.

    Raises:
        DistilError: the store has no whole shard, or lies on another file system than ``scratch``.
        StoreError: it cannot be read.
    """
    num_views = TeacherStore.open(store).num_views
    for size in sizes:
        target = scratch / f"{size}.zarr"
        multiply_store(store, target, size * num_views)
        yield in_fresh_process(_epoch_cost, target, student, batch_size)


def _open(store: Path) -> StoredPeople:
    opened = TeacherStore.open(store)
    if opened.optional.crops is None or opened.num_views == 1:
        raise ConfigError(
            f"{store} must hold crops and augmented views; write one with cache-teacher --crops"
        )
    return open_store_views(store, None, _FROM_CROPS, LOSS.reads)


def _loading_seconds(store: Path, student: str, batch_size: int, num_batches: int = 12) -> float:
    """Return the processor time of loading a crop in this process, a first batch not counted."""
    cv2.setNumThreads(0)
    views = _open(store)
    dataset = views.dataset(student_and_info(student)[0].input_size_hw)
    batches = islice(_endless(views.order(batch_size, seed=0)), 1 + num_batches)
    dataset[next(batches)]
    began = time.process_time()
    for batch in batches:
        dataset[batch]
    return (time.process_time() - began) / (num_batches * batch_size)


def _endless(order: object) -> Iterator[ViewBatch]:
    assert isinstance(order, ViewOrder)  # the settings say so
    for epoch in count():
        yield from order.batches(epoch, 0)


def _epoch_cost(store: Path, student: str, batch_size: int) -> EpochCost:
    """Open a store, and let a forked worker load; call it in a fresh process."""
    ours, theirs = multiprocessing.Pipe()
    size_hw = student_and_info(student)[0].input_size_hw
    began = time.process_time()
    views = _open(store)
    order = views.order(batch_size, seed=0)
    assert isinstance(order, ViewOrder)  # the settings say so
    next(order.batches(0, 0))
    opened = time.process_time() - began
    worker = multiprocessing.get_context("fork").Process(
        target=_load_epoch, args=(views, size_hw, order, theirs)
    )
    worker.start()
    theirs.close()
    first, per_person, private = ours.recv()
    worker.join()
    return EpochCost(len(views.instances), opened, first, per_person, private)


LOADED_PEOPLE = 6_400
"""People that a worker loads of an epoch: all of a small one, and of a larger one its share."""


def _load_epoch(
    views: StoredPeople, size_hw: tuple[int, int], order: ViewOrder, answer: Connection
) -> None:
    cv2.setNumThreads(0)
    dataset = views.dataset(size_hw)
    rows = views.instances[:: views.store.rows_per_shard]
    began = time.process_time()
    for start in range(0, len(rows), order.batch_size):
        some = rows[start : start + order.batch_size]
        dataset[ViewBatch(some, np.ones_like(some))]
    first = time.process_time() - began
    began, num_loaded = time.process_time(), 0
    for batch in islice(order.batches(0, 0), max(1, LOADED_PEOPLE // order.batch_size)):
        dataset[batch]
        num_loaded += len(batch.instances)
    answer.send((first, (time.process_time() - began) / num_loaded, private_megabytes()))
