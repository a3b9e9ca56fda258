"""The views that every reader is asked for, and their maps in the formats of the peers.

The raw file has the offsets of a whole one and is sparse: only the drawn views take space. HDF5 and
LMDB hold the drawn views alone, which favours them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from pipeline.teacher_store.reader import TeacherStore
from store_schemas.heatmap_codec import decode_heatmaps


@dataclass(frozen=True)
class DrawnViews:
    """Batches of views, drawn evenly from the people all of whose views are there."""

    batches: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    """(B,) rows and (B,) views of each."""
    num_views: int
    """V of the store."""

    def flat(self, batch: int) -> list[int]:
        """Return row * V + view of a batch's views."""
        rows, views = self.batches[batch]
        flat: list[int] = (rows * self.num_views + views).tolist()
        return flat

    def distinct(self) -> list[int]:
        """Return row * V + view of all of them, sorted, each once."""
        return sorted({view for batch in range(len(self.batches)) for view in self.flat(batch)})


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


def raw_view_bytes(store: TeacherStore) -> int:
    """Return the bytes of one view's heat as float16."""
    return 2 * store.people.skeleton.num_keypoints * int(np.prod(store.heatmap_size_hw))


def write_raw_float16(store: TeacherStore, drawn: DrawnViews, path: Path) -> None:
    """Write the drawn views' heat at the offsets of a file of all views."""
    length = raw_view_bytes(store)
    with path.open("wb") as file:
        for view, stored, scale in _maps(store, drawn):
            heat = decode_heatmaps(stored, scale).astype(np.float16)
            os.pwrite(file.fileno(), heat.tobytes(), view * length)
        os.fsync(file.fileno())


def write_hdf5(store: TeacherStore, drawn: DrawnViews, path: Path) -> None:
    """Write the drawn views' maps in h5py's fast compression (lzf), a chunk each."""
    distinct, h5py = drawn.distinct(), import_module("h5py")
    shape = (store.people.skeleton.num_keypoints, *store.heatmap_size_hw)
    with h5py.File(path, "w") as file:
        maps: Any = file.create_dataset(
            "heatmaps",
            (len(distinct), *shape),
            store.heatmap_dtype,
            chunks=(1, *shape),
            compression="lzf",
        )
        for place, (_, stored, _) in enumerate(_maps(store, drawn)):
            maps[place] = stored


def write_lmdb(store: TeacherStore, drawn: DrawnViews, path: Path) -> None:
    """Write the drawn views' maps into LMDB, compressed by the store's own Blosc settings."""
    compress = blosc.Blosc(**store.profile.blosc_of_numcodecs())
    environment: Any = import_module("lmdb").open(str(path), map_size=1 << 36)
    with environment, environment.begin(write=True) as transaction:
        for view, stored, _ in _maps(store, drawn):
            transaction.put(view.to_bytes(8, "big"), compress.encode(stored))


def _maps(
    store: TeacherStore, drawn: DrawnViews
) -> Iterator[tuple[int, NDArray[Any], NDArray[np.float32]]]:
    """Yield row * V + view, stored maps and scale of each distinct view."""
    for view in drawn.distinct():
        found = store.read([view // drawn.num_views], [view % drawn.num_views])
        yield view, found.heatmaps[0], found.scale[0]
