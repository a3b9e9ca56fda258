"""Figures of a store, how rounds are timed, and the JSON file that a benchmark writes."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.config import StageConfig
from pipeline.runs.run_folder import provenance
from pipeline.storage.files import make_folder, publish

Way = TypeVar("Way")
FiguresT = TypeVar("FiguresT")


@dataclass(frozen=True)
class Measured(Generic[FiguresT]):
    """Figures of a benchmark, and the file that holds them."""

    figures: FiguresT
    written: Path | None


@dataclass(frozen=True)
class Bounded:
    """A figure beside its limit."""

    name: str
    value: float
    limit: float | None
    """None: it is printed for comparison alone."""
    is_largest: bool = True
    """Whether the limit is the largest value that holds, else the smallest."""

    @property
    def holds(self) -> bool | None:
        """Whether the figure keeps its limit; None: it has none."""
        if self.limit is None:
            return None
        return self.value <= self.limit if self.is_largest else self.value >= self.limit


@dataclass(frozen=True)
class ReaderFigures:
    """One reader over all rounds."""

    name: str
    warm_views_per_second: float
    """Views per second of processor time in the median round."""
    ratio_to_raw: float
    """Time of raw float16 over the time of this reader, median over rounds."""
    cold_views_per_second: float | None
    """Views per second of wall-clock time; None for a reader that reads no file."""


@dataclass
class ReadingFigures:
    """All readers of one store."""

    profile: str
    store_views: int
    bytes_per_view: float
    """Bytes of all files of the store, divided by its views."""
    raw_bytes_per_view: int
    decoded_bytes_per_view: int
    memcpy_gb_per_second: float
    readers: list[ReaderFigures] = field(default_factory=list)


@dataclass(frozen=True)
class StoreCost:
    """What a store costs the process that opens it, and a worker forked from that process."""

    num_views: int
    open_seconds: float
    """Wall-clock seconds to open the store, page cache full."""
    open_processor_seconds: float
    worker_private_mb: float
    """Private memory of a forked worker after it read its batches."""
    worker_views_per_second: float
    """Views per second of processor time, over the worker's last tenth of batches."""


@dataclass(frozen=True)
class LoaderCost:
    """Processor seconds of a loader's batch, images read from disk, decoded and warped."""

    num_batches: int
    batch_size: int
    without_targets: float
    """Seconds of a batch without targets, median over processes."""
    ratios: tuple[float, ...]
    """Time with targets over time without, of the same batch one after the other: the median of
    each process. Processes differ by some hundredths, with the layout of their memory."""

    @property
    def ratio(self) -> float:
        """Time with targets over time without, median over processes."""
        return median(self.ratios)


@dataclass
class StoreFigures:
    """All that was measured of one store."""

    store: str
    reading: ReadingFigures
    costs: list[StoreCost] = field(default_factory=list)
    """Costs of a store of one shard, of one of many views, and of a larger one."""
    loader: LoaderCost | None = None


def processor_seconds(work: Callable[[int], object], batch: int) -> float:
    """Return the processor seconds that this process spends on one batch."""
    started = time.process_time()
    work(batch)
    return time.process_time() - started


def seconds_in_turns(
    ways: Mapping[Way, Callable[[int], object]],
    batches: Sequence[int],
    num_rounds: int,
    seconds_of: Callable[[Callable[[int], object], int], float] = processor_seconds,
) -> dict[Way, NDArray[np.float64]]:
    """Do the same batches in several ways, in turns, and return the seconds of each.

    A busy machine slows all ways alike, and each batch begins with the next way. A first round,
    which fills the caches, is not counted.

    ways: each is called with the number of a batch.
    seconds_of: measures such a call; by default the processor seconds of this process.
    Returns (num_rounds, len(batches)) seconds for each way.
    """
    names = list(ways)
    seconds = {name: np.empty((num_rounds + 1, len(batches))) for name in names}
    for turn in range(num_rounds + 1):
        for place, batch in enumerate(batches):
            first = (turn + place) % len(names)
            for name in names[first:] + names[:first]:
                seconds[name][turn, place] = seconds_of(ways[name], batch)
    return {name: spent[1:] for name, spent in seconds.items()}


def write_figures(
    folder: Path | None, name: str, config: StageConfig, figures: Mapping[str, Any]
) -> Path | None:
    """Write figures beside the settings and the machine that they were measured with.

    Returns the file; without a folder nothing is written, and it is None.

    Raises:
        StorageError: the file cannot be written.
    """
    if folder is None:
        return None
    make_folder(folder)
    document = {"config": json.loads(config.to_json()), "provenance": provenance(), **figures}
    publish(folder / name, (json.dumps(document, indent=1) + "\n").encode())
    return folder / name
