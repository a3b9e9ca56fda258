"""Speed of reading views: in one fresh process, each reader in turns with raw float16.

A busy machine slows both of them alike, so the ratios hold where the figures do not. Warm:
processor time, the page cache full. Cold: wall-clock time, after the kernel was told to drop the
files.

Each reader decodes into a batch that it owns. Only ``TeacherStore`` delivers whole training records
with every checksum compared; the others deliver the maps. Other formats are written first: the raw
file has the offsets of a whole one and is sparse, so that only the drawn views take space; HDF5 and
LMDB hold the drawn views alone, which favours them.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import blosc
from numpy.typing import NDArray

from pipeline.benchmarks.figures import (
    ReaderFigures,
    ReadingFigures,
    processor_seconds,
    seconds_in_turns,
)
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.chunks import decode_blosc
from store_schemas.heatmap_codec import dequantise_heatmaps

RAW = "raw float16, preadv"
OURS = "distil"
LIMIT = "decoding alone, from memory"
TENSORSTORE_CACHE_BYTES = 8 << 20
"""Enough for the indexes of hundreds of shards, too little to remember the maps between rounds."""


@dataclass(frozen=True)
class DrawnViews:
    """Batches of views, drawn evenly from the people all of whose views are there."""

    batches: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    """(B,) rows and (B,) views of each batch."""
    num_views: int
    """Views of each person in the store, V."""

    def flat(self, batch: int) -> list[int]:
        """Return row * V + view of a batch's views."""
        rows, views = self.batches[batch]
        flat: list[int] = (rows * self.num_views + views).tolist()
        return flat

    def distinct(self) -> list[int]:
        """Return row * V + view of all of them, sorted, each once."""
        return sorted({view for batch in range(len(self.batches)) for view in self.flat(batch)})


@dataclass(frozen=True)
class Reader:
    """A way to read the drawn views."""

    read: Callable[[int], None]
    """Reads the views of one drawn batch."""
    files: list[Path] | None
    """Files to drop from the page cache before a cold read; None: the reader reads no file."""


def draw_batches(
    store: TeacherStore, num_batches: int, batch_size: int, seed: int = 0
) -> DrawnViews:
    """Draw views with replacement."""
    random = np.random.default_rng(seed)
    people = store.present_instances()
    batches = [
        (
            people[random.integers(0, len(people), batch_size)],
            random.integers(0, store.num_views, batch_size),
        )
        for _ in range(num_batches)
    ]
    return DrawnViews(batches, store.num_views)


def new_batch(store: TeacherStore, batch_size: int) -> NDArray[Any]:
    """Return zeros (B, K, Hh, Wh) of the type in which the store keeps heatmaps."""
    return np.zeros((batch_size, *_map_shape(store)), store.heatmap_dtype)


def open_readers(store: TeacherStore, drawn: DrawnViews, work: Path) -> dict[str, Reader]:
    """Return every reader of which this machine has the library, by name.

    work: folder for the maps in other formats.
    """
    return {
        name: open_reader(store, drawn, work)
        for name, (library, open_reader) in _READERS.items()
        if find_spec(library) is not None
    }


def write_raw_float16(store: TeacherStore, drawn: DrawnViews, path: Path) -> None:
    """Write the drawn views' heat at the offsets of a file of all views."""
    length = _raw_view_bytes(store)
    with path.open("wb") as file:
        for view, stored, scale in _maps(store, drawn):
            heat = dequantise_heatmaps(stored, scale).astype(np.float16)
            os.pwrite(file.fileno(), heat.tobytes(), view * length)
        os.fsync(file.fileno())


def _distil(store: TeacherStore, drawn: DrawnViews, _: Path) -> Reader:
    """Read whole records: heatmaps, outputs, affine; every checksum compared."""
    out = _batch(store, drawn)

    def read(batch: int) -> None:
        store.read(*drawn.batches[batch], out=out)

    return Reader(read, _shard_files(store, drawn))


def _raw_float16(store: TeacherStore, drawn: DrawnViews, work: Path) -> Reader:
    """Read the same maps as raw float16, by ``preadv`` into place."""
    path, length = work / "raw.float16", _raw_view_bytes(store)
    write_raw_float16(store, drawn, path)
    out = _batch(store, drawn).astype(np.float16)
    into = [memoryview(view).cast("B") for view in out]
    file = os.open(path, os.O_RDONLY)
    flat = [drawn.flat(batch) for batch in range(len(drawn.batches))]

    def read(batch: int) -> None:
        for place, view in enumerate(flat[batch]):
            os.preadv(file, (into[place],), view * length)

    return Reader(read, [path])


def _zarr(store: TeacherStore, drawn: DrawnViews, _: Path) -> Reader:
    """Read the same shards by zarr, a view at a time (its ``oindex`` is slower)."""
    maps: Any = zarr.open_array(_group(store) / "heatmaps", mode="r")
    out = _batch(store, drawn)

    def read(batch: int) -> None:
        rows, views = (index.tolist() for index in drawn.batches[batch])
        for place, (row, view) in enumerate(zip(rows, views, strict=True)):
            out[place] = maps[row, view]

    return Reader(read, _shard_files(store, drawn))


def _decoding_alone(store: TeacherStore, drawn: DrawnViews, _: Path) -> Reader:
    """Decode the chunks of one batch again and again from memory: no reader can be faster."""
    out = _batch(store, drawn)
    codec = _blosc(store)
    chunks = [codec.encode(view) for view in store.read(*drawn.batches[0]).heatmaps]

    def read(_: int) -> None:
        for chunk, into in zip(chunks, out, strict=True):
            decode_blosc(chunk, into)

    return Reader(read, None)


def _tensorstore(store: TeacherStore, drawn: DrawnViews, _: Path) -> Reader:
    """Read the same shards by TensorStore, one thread, a batch at once (view by view is slower)."""
    module: Any = import_module("tensorstore")
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str((_group(store) / "heatmaps").absolute())},
        "recheck_cached_data": False,
        "recheck_cached_metadata": False,
        "context": {
            "cache_pool": {"total_bytes_limit": TENSORSTORE_CACHE_BYTES},
            "data_copy_concurrency": {"limit": 1},
            "file_io_concurrency": {"limit": 1},
        },
    }
    maps = module.open(spec).result()

    def read(batch: int) -> None:
        maps.vindex[drawn.batches[batch]].read().result()

    return Reader(read, _shard_files(store, drawn))


def _hdf5(store: TeacherStore, drawn: DrawnViews, work: Path) -> Reader:
    """Read a file of the drawn views in h5py's fast compression (lzf), a chunk for each view."""
    h5py, path, distinct = import_module("h5py"), work / "maps.h5", drawn.distinct()
    shape = _map_shape(store)
    with h5py.File(path, "w") as file:
        written: Any = file.create_dataset(
            "heatmaps",
            (len(distinct), *shape),
            store.heatmap_dtype,
            chunks=(1, *shape),
            compression="lzf",
        )
        for place, (_, stored, _) in enumerate(_maps(store, drawn)):
            written[place] = stored
    maps: Any = h5py.File(path, "r", rdcc_nbytes=0)["heatmaps"]
    out = _batch(store, drawn)
    place_of = {view: place for place, view in enumerate(distinct)}

    def read(batch: int) -> None:
        for place, view in enumerate(drawn.flat(batch)):
            maps.read_direct(out, np.s_[place_of[view]], np.s_[place])

    return Reader(read, [path])


def _lmdb(store: TeacherStore, drawn: DrawnViews, work: Path) -> Reader:
    """Read a database of the drawn views, encoded and decoded by the store's Blosc settings."""
    lmdb: Any = import_module("lmdb")
    path, codec = work / "maps.lmdb", _blosc(store)
    writer = lmdb.open(str(path), map_size=1 << 36)
    with writer, writer.begin(write=True) as transaction:
        for view, stored, _ in _maps(store, drawn):
            transaction.put(view.to_bytes(8, "big"), codec.encode(stored))
    environment = lmdb.open(str(path), readonly=True, lock=False)
    out = _batch(store, drawn)

    def read(batch: int) -> None:
        with environment.begin(buffers=True) as transaction:
            for place, view in enumerate(drawn.flat(batch)):
                blosc.decompress(transaction.get(view.to_bytes(8, "big")), out[place])

    return Reader(read, [path / "data.mdb"])


_READERS: dict[str, tuple[str, Callable[[TeacherStore, DrawnViews, Path], Reader]]] = {
    OURS: ("zarr", _distil),
    RAW: ("numpy", _raw_float16),
    "zarr": ("zarr", _zarr),
    LIMIT: ("numcodecs", _decoding_alone),
    "TensorStore": ("tensorstore", _tensorstore),
    "h5py": ("h5py", _hdf5),
    "LMDB": ("lmdb", _lmdb),
}
"""Each reader by its name in the table, with the library that it needs."""


def _maps(
    store: TeacherStore, drawn: DrawnViews
) -> Iterator[tuple[int, NDArray[Any], NDArray[np.float32]]]:
    """Yield row * V + view, stored maps and scale of each distinct view."""
    for view in drawn.distinct():
        found = store.read([view // drawn.num_views], [view % drawn.num_views])
        yield view, found.heatmaps[0], found.scale[0]


def _map_shape(store: TeacherStore) -> tuple[int, int, int]:
    return (store.people.skeleton.num_keypoints, *store.heatmap_size_hw)


def _raw_view_bytes(store: TeacherStore) -> int:
    return 2 * int(np.prod(_map_shape(store)))


def _batch(store: TeacherStore, drawn: DrawnViews) -> Any:
    return new_batch(store, len(drawn.batches[0][0]))


def _blosc(store: TeacherStore) -> blosc.Blosc:
    return blosc.Blosc(**store.require_heatmaps().blosc_of_numcodecs())


def _group(store: TeacherStore) -> Path:
    return Path(store.path) / "teachers" / store.teacher


def _shard_files(store: TeacherStore, drawn: DrawnViews) -> list[Path]:
    shards = {view // drawn.num_views // store.rows_per_shard for view in drawn.distinct()}
    return [file for shard in sorted(shards) for file in _group(store).glob(f"*/c.{shard}.*")]


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


def measure_reading(plan: ReadingPlan) -> ReadingFigures:
    """Read the same drawn views in every way this machine has; call it in a fresh process.

    Raises:
        StoreError: the store cannot be read.
    """
    store = TeacherStore.open(plan.store)
    drawn = draw_batches(store, plan.num_batches, plan.batch_size)
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
