"""`distil benchmark cache`: what it measures adds up, and what it writes is what it prints."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.benchmarks import caching_speed as speed
from stages.benchmark_cache import benchmark_cache
from stages.commands.benchmark_tables import print_speeds
from stages.settings.benchmark import BenchmarkCacheConfig
from tests.support.recorded_progress import RecordedProgress


def test_the_benchmark_measures_both_teachers_and_leaves_no_store(
    inputs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "_SECONDS_ALONE", 0.01)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    settings = inputs.config()
    config = BenchmarkCacheConfig(
        annotations=settings.annotations,
        images=settings.images,
        teacher=settings.teacher,
        teacher_settings=settings.teacher_settings,
        views=1,
        people_count=5,
        scratch=scratch,
        output=tmp_path / "out",
    )
    progress = RecordedProgress()
    result = benchmark_cache(config, progress)
    assert progress.updates[-1] == (20, 20)
    assert list(scratch.iterdir()) == []
    for found in result.figures:
        assert found.num_views == 10
        assert found.limit_seconds >= found.cpu_seconds / found.num_cores
        assert found.seconds == pytest.approx(found.ratio * found.limit_seconds)
    null, given = result.figures
    assert (null.name, given.name) == ("null", "given")
    assert result.written == tmp_path / "out/cache.json"
    document = json.loads(result.written.read_text())
    assert [entry["ratio"] for entry in document["speeds"]] == [null.ratio, given.ratio]

    console = Console(file=io.StringIO(), width=80)
    print_speeds(console, result.figures)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for found in result.figures:
        row, _ = [line for line in printed.splitlines() if line.strip().startswith(found.name)]
        assert row.split()[-1] == f"{found.ratio:.2f}"
