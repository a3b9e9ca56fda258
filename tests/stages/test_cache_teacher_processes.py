"""Laws of worker processes: signalled, killed or stopped, they end with the same store."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.caching import admission, cluster, shard_worker
from pipeline.caching.engines import EngineChoice
from pipeline.caching.shard_worker import ShardOutcome
from pipeline.errors import Stopped
from pipeline.storage.files import temporary_of
from pipeline.teacher_store.reader import TeacherStore
from stages import cache_teacher as stage
from stages.cache_teacher import cache_teacher
from tests.support.interruption import interrupt_after_the_first_shard

pytestmark = pytest.mark.usefixtures("hurried_cluster")


def torch_config(inputs: Any, **changes: Any) -> Any:
    """A trained network, whose bits depend on batches and threads."""
    teacher = Path(stage.__file__).with_name("demo_teacher.safetensors")
    activation = {"teacher_settings__heatmap_activation": "none"}
    return inputs.config(teacher=teacher, **activation, **changes)


@pytest.fixture
def written_here_by_torch(inputs: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the plain loop writes; sources that are edited while processes start are let pass."""
    versions = {name: v for name, v in admission.software().items() if name != "distil"}
    monkeypatch.setattr(cluster, "software", lambda: versions)
    config = torch_config(inputs, store=str(inputs.folder / "here.zarr"))
    cache_teacher(config)
    return inputs.digests(Path(config.store))


def watch_workers(monkeypatch: pytest.MonkeyPatch, react: Callable[[int], None]) -> list[int]:
    """After the first shard, do something to every process that still has shards to write."""
    settle, pids = cluster._Run._settle, list[int]()

    def spied(self: Any, key: str) -> ShardOutcome | None:
        outcome = settle(self, key)
        if outcome is not None and not pids:
            busy = sorted({address for _, address, _ in self._running.values()})
            pids.extend(self._client.run(os.getpid, workers=busy).values())
            for pid in pids:
                react(pid)
        return outcome

    monkeypatch.setattr(cluster._Run, "_settle", spied)
    return pids


def test_batches_side_by_side_write_the_bytes_of_one_after_the_other(
    inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_worker, "available_cores", lambda: 1)
    alone = torch_config(inputs, store=str(inputs.folder / "alone.zarr"))
    cache_teacher(alone)
    monkeypatch.setattr(shard_worker, "available_cores", lambda: 3)
    cache_teacher(torch_config(inputs))
    assert inputs.digests() == inputs.digests(Path(alone.store))


def test_two_processes_write_the_bytes_of_the_plain_loop_whatever_signals_they_get(
    inputs: Any, monkeypatch: pytest.MonkeyPatch, written_here_by_torch: dict[str, str]
) -> None:
    """A terminal's Ctrl-C reaches them too, and is none of their business."""
    pids = watch_workers(monkeypatch, lambda pid: os.kill(pid, signal.SIGINT))
    said: list[str] = []
    cache_teacher(torch_config(inputs), engine_choice=EngineChoice(num_workers=2), say=said.append)
    assert pids
    assert [line for line in said if line.startswith("shard")] == []
    assert inputs.digests() == written_here_by_torch


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_no_byte(
    inputs: Any, monkeypatch: pytest.MonkeyPatch, written_here_by_torch: dict[str, str]
) -> None:
    killed: list[int] = []

    def kill_one(pid: int) -> None:
        if not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
            # what it leaves if that meets it between opening a file and renaming it
            temporary_of(Path(inputs.store) / "teachers/teacher/outputs/c.0.0.0.0").touch()

    said: list[str] = []
    watch_workers(monkeypatch, kill_one)
    cache_teacher(torch_config(inputs), engine_choice=EngineChoice(num_workers=2), say=said.append)
    assert any(" again: worker tcp://" in line and "the worker left" in line for line in said)
    assert inputs.digests() == written_here_by_torch


@pytest.mark.slow
def test_four_processes_go_on_with_what_another_cluster_left(
    inputs: Any, monkeypatch: pytest.MonkeyPatch, written_here_by_torch: dict[str, str]
) -> None:
    interrupt_after_the_first_shard(monkeypatch)
    with pytest.raises(Stopped):
        cache_teacher(torch_config(inputs), engine_choice=EngineChoice(num_workers=2))
    cache_teacher(torch_config(inputs), resume=True, engine_choice=EngineChoice(num_workers=4))
    assert inputs.digests() == written_here_by_torch
    assert TeacherStore.open(inputs.store).num_shards > 4
