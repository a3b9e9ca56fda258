"""Ways to read a batch of views; each decodes into a batch that it owns.

Only ``TeacherStore`` delivers whole training records with every checksum compared; the others
deliver the maps.
"""

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import blosc

from pipeline.benchmarks.drawn_views import DrawnViews, raw_view_bytes
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.blosc_chunks import decode_blosc

ReadBatch = Callable[[int], None]
"""Reads the views of one drawn batch."""
TENSORSTORE_CACHE_BYTES = 8 << 20
"""Enough for the indexes of hundreds of shards, too little to remember the maps between rounds."""
PEERS = {"TensorStore": "tensorstore", "h5py": "h5py", "LMDB": "lmdb"}


def installed_peers() -> list[str]:
    """Return the peers that this machine has."""
    return [name for name, module in PEERS.items() if find_spec(module) is not None]


def distil_reader(store: TeacherStore, drawn: DrawnViews) -> ReadBatch:
    """Whole records: heatmaps, outputs, affine; every checksum compared."""
    out = _batch(store, drawn)

    def read(batch: int) -> None:
        store.read(*drawn.batches[batch], out=out)

    return read


def decoding_alone(store: TeacherStore, drawn: DrawnViews) -> ReadBatch:
    """The chunks of one batch, decoded again and again from memory: what no reader can beat."""
    out = _batch(store, drawn)
    maps = store.read(*drawn.batches[0]).heatmaps
    codec = blosc.Blosc(**store.profile.blosc_of_numcodecs())
    chunks = [codec.encode(view) for view in maps]

    def read(_: int) -> None:
        for chunk, into in zip(chunks, out, strict=True):
            decode_blosc(chunk, into)

    return read


def raw_float16_reader(store: TeacherStore, drawn: DrawnViews, path: Path) -> ReadBatch:
    """The same maps as raw float16, by ``preadv`` into place."""
    length = raw_view_bytes(store)
    out = _batch(store, drawn).astype(np.float16)
    into = [memoryview(view).cast("B") for view in out]
    file = os.open(path, os.O_RDONLY)
    flat = [drawn.flat(batch) for batch in range(len(drawn.batches))]

    def read(batch: int) -> None:
        for place, view in enumerate(flat[batch]):
            os.preadv(file, (into[place],), view * length)

    return read


def zarr_reader(store: TeacherStore, drawn: DrawnViews) -> ReadBatch:
    """zarr's own reading of the same shards, a view at a time (its ``oindex`` is slower)."""
    maps: Any = zarr.open_array(_heatmaps(store), mode="r")
    out = _batch(store, drawn)

    def read(batch: int) -> None:
        rows, views = (index.tolist() for index in drawn.batches[batch])
        for place, (row, view) in enumerate(zip(rows, views, strict=True)):
            out[place] = maps[row, view]

    return read


def tensorstore_reader(store: TeacherStore, drawn: DrawnViews) -> ReadBatch:
    """TensorStore on the same shards, one thread, a batch at once (view by view is slower)."""
    module: Any = import_module("tensorstore")
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(_heatmaps(store).absolute())},
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

    return read


def h5py_reader(store: TeacherStore, drawn: DrawnViews, path: Path) -> ReadBatch:
    """h5py on its own file of the drawn views."""
    maps: Any = import_module("h5py").File(path, "r", rdcc_nbytes=0)["heatmaps"]
    out = _batch(store, drawn)
    place_of = {view: place for place, view in enumerate(drawn.distinct())}

    def read(batch: int) -> None:
        for place, view in enumerate(drawn.flat(batch)):
            maps.read_direct(out, np.s_[place_of[view]], np.s_[place])

    return read


def lmdb_reader(store: TeacherStore, drawn: DrawnViews, path: Path) -> ReadBatch:
    """LMDB on its own file of the drawn views, decoded by the same Blosc."""
    environment: Any = import_module("lmdb").open(str(path), readonly=True, lock=False)
    out = _batch(store, drawn)

    def read(batch: int) -> None:
        with environment.begin(buffers=True) as transaction:
            for place, view in enumerate(drawn.flat(batch)):
                blosc.decompress(transaction.get(view.to_bytes(8, "big")), out[place])

    return read


def _batch(store: TeacherStore, drawn: DrawnViews) -> Any:
    shape = (store.people.skeleton.num_keypoints, *store.heatmap_size_hw)
    return np.zeros((len(drawn.batches[0][0]), *shape), store.heatmap_dtype)


def _heatmaps(store: TeacherStore) -> Path:
    return Path(store.path) / "teachers" / store.teacher / "heatmaps"
