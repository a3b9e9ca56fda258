"""Teacher stores -> reading speed beside other readers and formats, and costs of a process."""

import tempfile
from dataclasses import asdict
from pathlib import Path

from pipeline.benchmarks.figures import Measured, StoreFigures, write_figures
from pipeline.benchmarks.processes import (
    in_fresh_process,
    measure_loader,
    measure_store_cost,
    multiply_store,
)
from pipeline.benchmarks.reading import ReadingPlan, measure_reading
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.storage.files import make_folder
from pipeline.teacher_store.reader import TeacherStore
from stages.settings.benchmark import BenchmarkStoreConfig


def benchmark_store(
    config: BenchmarkStoreConfig, progress: Progress = NO_PROGRESS
) -> Measured[list[StoreFigures]]:
    """Read stores in fresh processes beside raw float16, zarr and the peers that are installed.

    progress: counts stores.

    Raises:
        StoreError: a store cannot be read, or is not complete.
        DistilError: a store is too small, or lies on another file system than ``output``.
    """
    make_folder(config.output)
    figures: list[StoreFigures] = []
    for path in config.store:
        TeacherStore.open(path).require_heatmaps()
    for place, path in enumerate(config.store):
        progress.update(place, len(config.store))
        with tempfile.TemporaryDirectory(dir=config.output, prefix="scratch-") as scratch:
            figures.append(_measure(config, path, Path(scratch)))
    progress.update(len(config.store), len(config.store))
    document = {"stores": [asdict(found) for found in figures]}
    return Measured(figures, write_figures(config.output, "store.json", config, document))


def _measure(config: BenchmarkStoreConfig, path: Path, scratch: Path) -> StoreFigures:
    with_views = _at_least(path, config.views, scratch / "store.zarr")
    reading = in_fresh_process(
        measure_reading,
        ReadingPlan(with_views, scratch, num_batches=config.batches, num_rounds=config.rounds),
    )
    found = StoreFigures(str(path), reading)
    multiply_store(path, scratch / "tiny.zarr", 1)
    stores = [scratch / "tiny.zarr", with_views]
    if config.large_views:
        stores.append(_at_least(path, config.large_views, scratch / "large.zarr"))
    for store in stores:
        found.costs.append(in_fresh_process(measure_store_cost, store, config.worker_batches))
    if config.images is not None:
        found.loader = measure_loader(with_views, config.images, config.loader_processes)
    return found


def _at_least(path: Path, num_views: int, target: Path) -> Path:
    if TeacherStore.open(path).status.size >= num_views:
        return path
    multiply_store(path, target, num_views)
    return target
