"""`distil benchmark store` on a generated store: the copies are valid, the readers agree."""

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipeline.benchmarks.processes import in_fresh_process, measure_store_cost, multiply_store
from pipeline.benchmarks.reading import (
    ReadingPlan,
    draw_batches,
    measure_reading,
    write_raw_float16,
)
from pipeline.errors import DistilError
from pipeline.teacher_store.reader import TeacherStore
from stages.benchmark_store import benchmark_store
from stages.commands.benchmark_tables import print_store_benchmark
from stages.settings.benchmark import BenchmarkStoreConfig
from store_schemas.heatmap_codec import dequantise_heatmaps
from tests.support.generated_store import write_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 8 people and 2 views in shards of 3, 3 and 2 people; row 2 was unreadable."""
    path = tmp_path_factory.mktemp("benchmark") / "store.zarr"
    write_store(path, "default", 2)
    return path


def test_a_multiplied_store_is_valid_and_repeats_the_whole_shards(
    whole: Path, tmp_path: Path
) -> None:
    multiply_store(whole, tmp_path / "many.zarr", 30)
    store, source = TeacherStore.open(tmp_path / "many.zarr"), TeacherStore.open(whole)
    assert store.status.shape == (15, 2)
    found, once = store.read([0, 6, 13], [1, 1, 0]), source.read([0, 0, 1], [1, 1, 0])
    for name in found.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(once, name))
    shard = "teachers/hrnet/heatmaps/c.2.0.0.0.0"
    first = whole / "teachers/hrnet/heatmaps/c.0.0.0.0.0"
    assert (tmp_path / "many.zarr" / shard).stat().st_ino == first.stat().st_ino


def test_the_raw_file_holds_the_heat_of_the_drawn_views(whole: Path, tmp_path: Path) -> None:
    store = TeacherStore.open(whole)
    drawn = draw_batches(store, 2, 4)
    write_raw_float16(store, drawn, tmp_path / "raw")
    raw = np.fromfile(tmp_path / "raw", np.float16).reshape(-1, 3, 16, 12)
    for batch, (rows, views) in enumerate(drawn.batches):
        found = store.read(rows, views)
        heat = dequantise_heatmaps(found.heatmaps, found.scale).astype(np.float16)
        np.testing.assert_array_equal(raw[drawn.flat(batch)], heat)


def test_every_reader_is_measured_against_raw_float16(whole: Path, tmp_path: Path) -> None:
    figures = measure_reading(ReadingPlan(whole, tmp_path, num_batches=2, num_rounds=1))
    by_name = {row.name: row for row in figures.readers}
    assert by_name["raw float16, preadv"].ratio_to_raw == 1.0
    assert {"distil", "zarr", "decoding alone, from memory"} < set(by_name)
    assert figures.raw_bytes_per_view == 2 * figures.decoded_bytes_per_view == 1152
    assert all(row.warm_views_per_second > 0 for row in figures.readers)


@pytest.mark.slow
def test_the_benchmark_writes_what_it_prints(whole: Path, tmp_path: Path) -> None:
    config = BenchmarkStoreConfig(
        store=(whole,),
        views=60,
        large_views=120,
        batches=2,
        rounds=1,
        worker_batches=2,
        output=tmp_path / "out",
    )
    result = benchmark_store(config)
    assert result.written is not None
    document = json.loads(result.written.read_text())
    assert [cost["num_views"] for cost in document["stores"][0]["costs"]] == [6, 60, 120]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["store.json"]
    console = Console(file=io.StringIO(), width=100)
    print_store_benchmark(console, result.figures)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "profile default, 60 views" in printed
    assert "decoding alone, from memory" in printed


def test_a_store_that_cannot_be_linked_is_refused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(DistilError, match=r"Invalid cross-device link; give an --output on the"):
        multiply_store(whole, tmp_path / "many.zarr", 30)


@pytest.mark.slow
def test_a_workers_memory_does_not_grow_with_the_store(whole: Path, tmp_path: Path) -> None:
    """From as many shards on as a process keeps ready."""
    paths = [tmp_path / str(num_views) for num_views in (6 * 130, 6 * 1300)]
    for path in paths:
        multiply_store(whole, path, int(path.name))
    # Which pages a forked process shares with its parent varies; the least of three is the store's.
    small, large = (
        min(in_fresh_process(measure_store_cost, path, 50).worker_private_mb for _ in range(3))
        for path in paths
    )
    assert large < 1.2 * small
