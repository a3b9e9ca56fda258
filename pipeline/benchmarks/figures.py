"""What was measured of a store."""

from dataclasses import dataclass, field
from statistics import median


@dataclass
class ReaderFigures:
    """One reader over all rounds."""

    name: str
    warm_views_per_second: float
    """By processor time, the median round."""
    ratio_to_raw: float
    """Median over rounds of raw float16's time by this one's."""
    cold_views_per_second: float | None
    """By the clock; None where nothing is read from disk."""


@dataclass
class ReadingFigures:
    """All readers of one store."""

    profile: str
    store_views: int
    bytes_per_view: float
    """All files of the store."""
    raw_bytes_per_view: int
    decoded_bytes_per_view: int
    memcpy_gb_per_second: float
    readers: list[ReaderFigures] = field(default_factory=list)


@dataclass(frozen=True)
class StoreCost:
    """What a process that opens the store pays, and a worker forked from it."""

    num_views: int
    open_seconds: float
    """By the clock, page cache full."""
    open_processor_seconds: float
    worker_private_mb: float
    """Private memory of a forked worker after it read its batches."""
    worker_views_per_second: float
    """By processor time, over the worker's last tenth of batches."""


@dataclass(frozen=True)
class LoaderCost:
    """Processor seconds of a loader's batch, decoding and warping images of the disk."""

    num_batches: int
    batch_size: int
    without_targets: float
    """The median over processes."""
    ratios: tuple[float, ...]
    """Of each process: time with targets by time without, of the same batch one after the other;
    the median. Processes differ by some hundredths, as their memory lies."""

    @property
    def ratio(self) -> float:
        """The median over processes."""
        return median(self.ratios)


@dataclass
class StoreFigures:
    """All that was measured of one store."""

    store: str
    reading: ReadingFigures
    costs: list[StoreCost] = field(default_factory=list)
    """Of one shard, of a store of many views, and of a larger one."""
    loader: LoaderCost | None = None
