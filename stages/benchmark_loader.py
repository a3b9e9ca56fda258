"""A teacher store with crops -> how busy its loader keeps a training, and what an epoch costs."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.benchmarks.figures import Bounded, Measured, write_figures
from pipeline.benchmarks.loading_speed import (
    BusyDevice,
    EpochCost,
    measure_busy_device,
    measure_epochs,
)
from pipeline.machine import choose_device
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.storage.files import make_folder
from pipeline.training.training_step import choose_precision
from stages.settings.benchmark import BenchmarkLoaderConfig

SMALLEST_SHARE = 0.95
"""Share of the time that the device is busy."""


@dataclass(frozen=True)
class LoaderFigures:
    """All that was measured of a loader."""

    busy: BusyDevice
    epochs: tuple[EpochCost, ...]

    @property
    def bounded(self) -> tuple[Bounded, ...]:
        """The figures beside their limits."""
        first, last = self.epochs[0], self.epochs[-1]
        per_person = [cost.epoch_seconds / cost.num_people for cost in (first, last)]
        return (
            Bounded("share of the time that the device is busy", self.busy.busy_share,
                    SMALLEST_SHARE, is_largest=False),
            Bounded("the same on free cores, of processor times", self.busy.share_on_free_cores,
                    SMALLEST_SHARE, is_largest=False),
            Bounded(f"a person's time, {last.num_people} people / {first.num_people}",
                    per_person[1] / per_person[0], None),
            Bounded("a worker's memory, likewise", last.worker_mb / first.worker_mb, None),
        )  # fmt: skip


def benchmark_loader(
    config: BenchmarkLoaderConfig, progress: Progress = NO_PROGRESS
) -> Measured[LoaderFigures]:
    """Train from the crops of a store, and load epochs of ever more people.

    progress: counts measurements.

    Raises:
        StoreError: the store cannot be read, or is not complete.
        ConfigError: it has no crops or no augmented views, or there is no such device.
        DistilError: it has no whole shard, or lies on another file system than ``output``.
    """
    device = choose_device(config.device, config.num_threads)
    make_folder(config.output)
    total = 1 + len(config.people)
    progress.update(0, total)
    busy = measure_busy_device(
        config.store,
        config.student,
        config.batch_size,
        config.num_loader_workers,
        config.steps,
        device,
        choose_precision(config.precision, device, None),
    )
    epochs = []
    with tempfile.TemporaryDirectory(dir=config.output, prefix="scratch-") as scratch:
        costs = measure_epochs(
            config.store, config.people, config.student, config.batch_size, Path(scratch)
        )
        for done, cost in enumerate(costs, start=1):
            progress.update(done, total)
            epochs.append(cost)
    progress.update(total, total)
    figures = LoaderFigures(busy, tuple(epochs))
    document = {**asdict(figures), "limits": [asdict(figure) for figure in figures.bounded]}
    return Measured(figures, write_figures(config.output, "loader.json", config, document))
