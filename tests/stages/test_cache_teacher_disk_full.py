"""A disk that takes no more stops a run with one line, and loses nothing of it."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli import main
from pipeline.caching.settings import CacheTeacherConfig
from pipeline.storage import files
from stages.cache_teacher import cache_teacher
from store_schemas.errors import StorageError
from tests.support.file_operations import Operation, watch

TOLD = (
    r"cannot be written: No space left on device.* are free.*; (the plan is not written yet|.* has "
    r"\d+ of \d+ shards?): continue with the same command and --resume$"
)


def run_watched(config: CacheTeacherConfig, before: Callable[[Operation], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, before, syncs=False)
        cache_teacher(config, resume=True)


def arguments(config: CacheTeacherConfig, *more: str) -> list[str]:
    paths = [f"--{name}={getattr(config, name)}" for name in ("annotations", "images", "teacher")]
    return [
        *("cache-teacher", *paths, f"--store={config.store}", f"--views={config.views}"),
        *("--batch-size=4", "--teacher-threads=1", "--accept-weak-teacher"),
        *("--heatmap-frame=half-pixel", "--heatmap-activation=sigmoid", *more),
    ]


def test_a_disk_that_is_full_at_any_moment_is_told_in_one_line_and_resumed_from(
    inputs: Any,
) -> None:
    """Sampled over all operations; whatever was asked of the disk says no from then on."""
    config = inputs.config(views=1)
    count, limit = 0, -1

    def full(operation: Operation) -> None:
        nonlocal count
        count += 1
        if 0 <= limit < count and operation.kind not in ("unlink", "rmdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run_watched(config, full)
    whole, num_operations = inputs.digests(), count
    for number in range(3, num_operations - 5, num_operations // 9):
        inputs.store.rename(inputs.folder / f"done{number}")
        count, limit = 0, number
        with pytest.raises(StorageError, match=TOLD) as refusal:
            run_watched(config, full)
        assert "\n" not in str(refusal.value)
        left = inputs.digests() if inputs.store.exists() else {}
        assert not [name for name in left if files.is_temporary(Path(name))]
        assert "writer.json" not in left
        limit = -1
        run_watched(config, full)
        assert inputs.digests() == whole, number


def test_the_command_ends_with_1_and_says_what_was_needed_and_how_many_shards_are_there(
    inputs: Any,
) -> None:
    """A real limit of the system, met by the third shard."""
    whole = inputs.config(store=str(inputs.folder / "whole.zarr"))
    cache_teacher(whole)
    config = inputs.config()
    former = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit_files(operation: Operation) -> None:
        if operation.kind == "create" and ".c.2." in operation.path.name:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, former[1]))

    with pytest.MonkeyPatch.context() as patch:
        watch(patch, limit_files, syncs=False)
        try:
            result = CliRunner().invoke(main, arguments(config))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    file = inputs.store / "teachers/teacher/heatmaps"
    assert lines[0].startswith(f"distil: {file}/c.2.")
    assert " cannot be written: File too large (" in lines[0]
    assert " bytes were needed, " in lines[0]
    num_shards = len(list(Path(whole.store, "teachers/teacher/status").glob("c.*")))
    assert f"; {inputs.store} has 2 of {num_shards} shards: continue with" in lines[0]
    resumed = CliRunner().invoke(main, arguments(config, "--resume"))
    assert resumed.exit_code == 0, resumed.output
    assert inputs.digests() == inputs.digests(Path(whole.store))
