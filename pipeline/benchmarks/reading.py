"""Speed of reading views: in one fresh process, each reader in turns with raw float16.

A busy machine slows both of them alike, so the ratios hold where the figures do not. Warm:
processor time, the page cache full. Cold: wall-clock time, after the kernel was told to drop the
files.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.benchmarks.figures import (
    ReaderFigures,
    ReadingFigures,
    processor_seconds,
    seconds_in_turns,
)
from pipeline.benchmarks.readers import OURS, RAW, Reader, draw_batches, open_readers
from pipeline.teacher_store.reader import TeacherStore

SLOW = ("zarr",)
"""Readers that read one batch in ten."""


@dataclass(frozen=True)
class ReadingPlan:
    """What is read, and how often."""

    store: Path
    work: Path
    """Folder for the maps in other formats."""
    num_batches: int = 40
    batch_size: int = 64
    num_rounds: int = 5
    seed: int = 0


def measure_reading(plan: ReadingPlan) -> ReadingFigures:
    """Read the same drawn views in every way this machine has; call it in a fresh process.

    Raises:
        StoreError: the store cannot be read.
    """
    store = TeacherStore.open(plan.store)
    drawn = draw_batches(store, plan.num_batches, plan.batch_size, plan.seed)
    readers = open_readers(store, drawn, plan.work)
    cold = {name: _cold(reader, plan) for name, reader in readers.items()}
    seconds = _warm(readers, plan)
    cells = int(np.prod(store.heatmap_size_hw)) * store.people.skeleton.num_keypoints
    figures = ReadingFigures(
        profile=store.profile.name,
        store_views=int(store.status.size),
        bytes_per_view=_bytes_below(plan.store) / store.status.size,
        raw_bytes_per_view=2 * cells,
        decoded_bytes_per_view=cells * store.heatmap_dtype.itemsize,
        memcpy_gb_per_second=_memcpy_speed(cells * store.heatmap_dtype.itemsize, plan.batch_size),
    )
    _, raw_beside_ours = seconds[OURS]
    for name, (own, raw) in {**seconds, RAW: (raw_beside_ours, raw_beside_ours)}.items():
        ratio, speed = float(np.median(raw / own)), 1 / float(np.median(own))
        figures.readers.append(ReaderFigures(name, speed, ratio, cold[name]))
    return figures


def _cold(reader: Reader, plan: ReadingPlan) -> float | None:
    if reader.files is None:
        reader.read(0)
        return None
    for file in reader.files:
        _drop(file)
    batches = range(2)
    start = time.perf_counter()
    for batch in batches:
        reader.read(batch)
    return len(batches) * plan.batch_size / (time.perf_counter() - start)


def _warm(
    readers: dict[str, Reader], plan: ReadingPlan
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return processor seconds of a view in each round: the reader's, and raw float16's beside it.

    Each reader takes turns with raw float16 alone: a third one would change the processor's caches.
    """
    seconds = {}
    for name, reader in readers.items():
        if name == RAW:
            continue
        batches = range(0, plan.num_batches, 10 if name in SLOW else 1)
        ways = {name: reader.read, RAW: readers[RAW].read}
        spent = seconds_in_turns(ways, batches, plan.num_rounds)
        own, raw = (spent[way].mean(axis=1) / plan.batch_size for way in ways)
        seconds[name] = own, raw
    return seconds


def _memcpy_speed(view_bytes: int, batch_size: int) -> float:
    """Return how fast one batch of decoded maps is copied, GB/s."""
    source, target = (np.zeros(view_bytes * batch_size, np.uint8) for _ in range(2))
    copy: Callable[[int], None] = lambda _: np.copyto(target, source)  # noqa: E731
    return source.nbytes / min(processor_seconds(copy, 0) for _ in range(20)) / 1e9


def _drop(path: Path) -> None:
    """Ask the kernel to forget a file's pages; on systems without the call they stay."""
    with suppress(AttributeError):
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
