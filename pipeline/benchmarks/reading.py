"""How fast views are read: in one fresh process, each reader in turns with raw float16.

A busy machine slows both of them alike, so the ratios hold where the figures do not. Warm:
processor time, the page cache full. Cold: wall-clock time, after the kernel was asked to drop the
files.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.benchmarks import readers
from pipeline.benchmarks.drawn_views import (
    DrawnViews,
    draw_batches,
    write_hdf5,
    write_lmdb,
    write_raw_float16,
)
from pipeline.benchmarks.figures import ReaderFigures, ReadingFigures
from pipeline.benchmarks.readers import ReadBatch
from pipeline.teacher_store.reader import TeacherStore

RAW = "raw float16, preadv"
OURS = "distil"
LIMIT = "decoding alone, from memory"
SLOW = ("zarr",)
"""Read one batch in ten."""


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
    ways, files = _ways(store, drawn, plan.work)
    cold = {name: _cold(read, files.get(name), plan) for name, read in ways.items()}
    seconds = _warm(ways, plan)
    cells = int(np.prod(store.heatmap_size_hw)) * store.people.skeleton.num_keypoints
    figures = ReadingFigures(
        profile=store.profile.name,
        store_views=int(store.status.size),
        bytes_per_view=_bytes_below(plan.store) / store.status.size,
        raw_bytes_per_view=2 * cells,
        decoded_bytes_per_view=cells * store.heatmap_dtype.itemsize,
        memcpy_gb_per_second=_memcpy_speed(cells * store.heatmap_dtype.itemsize, plan.batch_size),
    )
    seconds[RAW] = [(raw, raw) for _, raw in seconds[OURS]]
    for name, per_round in seconds.items():
        own, raw = np.transpose(per_round)
        ratio, speed = float(np.median(raw / own)), 1 / float(np.median(own))
        figures.readers.append(ReaderFigures(name, speed, ratio, cold[name]))
    return figures


def _ways(
    store: TeacherStore, drawn: DrawnViews, work: Path
) -> tuple[dict[str, ReadBatch], dict[str, list[Path]]]:
    """Return every reader, and the files to drop from the page cache for it."""
    shards = _shard_files(store, drawn)
    raw = work / "raw.float16"
    write_raw_float16(store, drawn, raw)
    ways = {
        OURS: readers.distil_reader(store, drawn),
        RAW: readers.raw_float16_reader(store, drawn, raw),
        "zarr": readers.zarr_reader(store, drawn),
        LIMIT: readers.decoding_alone(store, drawn),
    }
    files = {OURS: shards, RAW: [raw], "zarr": shards}
    peers = readers.installed_peers()
    if "TensorStore" in peers:
        ways["TensorStore"], files["TensorStore"] = readers.tensorstore_reader(store, drawn), shards
    if "h5py" in peers:
        hdf5 = work / "maps.h5"
        write_hdf5(store, drawn, hdf5)
        ways["h5py"], files["h5py"] = readers.h5py_reader(store, drawn, hdf5), [hdf5]
    if "LMDB" in peers:
        lmdb = work / "maps.lmdb"
        write_lmdb(store, drawn, lmdb)
        ways["LMDB"] = readers.lmdb_reader(store, drawn, lmdb)
        files["LMDB"] = [lmdb / "data.mdb"]
    return ways, files


def _cold(read: ReadBatch, files: list[Path] | None, plan: ReadingPlan) -> float | None:
    if files is None:
        read(0)
        return None
    for file in files:
        _drop(file)
    batches = range(2)
    start = time.perf_counter()
    for batch in batches:
        read(batch)
    return len(batches) * plan.batch_size / (time.perf_counter() - start)


def _warm(ways: dict[str, ReadBatch], plan: ReadingPlan) -> dict[str, list[tuple[float, float]]]:
    """Return processor seconds a view by reader and round: its own, and raw float16's beside it.

    Each reader takes turns with raw float16 alone, batch by batch: what a third one leaves in the
    processor's caches would be counted too. A first round fills the caches.
    """
    seconds: dict[str, list[tuple[float, float]]] = {}
    for name, read in ways.items():
        if name == RAW:
            continue
        batches = range(0, plan.num_batches, 10 if name in SLOW else 1)
        rounds = []
        for _ in range(plan.num_rounds + 1):
            own = raw = 0.0
            for batch in batches:
                own += _processor_seconds(read, batch)
                raw += _processor_seconds(ways[RAW], batch)
            count = len(batches) * plan.batch_size
            rounds.append((own / count, raw / count))
        seconds[name] = rounds[1:]
    return seconds


def _processor_seconds(read: ReadBatch, batch: int) -> float:
    start = time.process_time()
    read(batch)
    return time.process_time() - start


def _memcpy_speed(view_bytes: int, batch_size: int) -> float:
    """Return how fast one batch of decoded maps is copied, GB/s."""
    source, target = (np.zeros(view_bytes * batch_size, np.uint8) for _ in range(2))
    copy: Callable[[int], None] = lambda _: np.copyto(target, source)  # noqa: E731
    return source.nbytes / min(_processor_seconds(copy, 0) for _ in range(20)) / 1e9


def _drop(path: Path) -> None:
    """Ask the kernel to forget a file's pages; on systems without the call they stay."""
    with suppress(AttributeError):
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _shard_files(store: TeacherStore, drawn: DrawnViews) -> list[Path]:
    shards = {view // drawn.num_views // store.rows_per_shard for view in drawn.distinct()}
    teacher = Path(store.path) / "teachers" / store.teacher
    return [file for shard in sorted(shards) for file in teacher.glob(f"*/c.{shard}.*")]


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
