"""Laws of choosing an engine, and of the admission of workers."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.caching import cluster, cluster_worker
from pipeline.caching.engines import EngineChoice, PlainLoop, open_engine
from pipeline.caching.shard_worker import ShardTask
from pipeline.errors import ClusterError, ConfigError
from pipeline.settings import TeacherSettings
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import acquire_lease


def test_dask_is_loaded_only_where_a_cluster_is_chosen() -> None:
    code = (
        "import sys\n"
        "from pipeline.caching.engines import EngineChoice, open_engine\n"
        "with open_engine(EngineChoice()): print({'dask', 'distributed'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_no_choice_is_the_plain_loop() -> None:
    with open_engine(EngineChoice()) as engine:
        assert isinstance(engine, PlainLoop)


@pytest.mark.parametrize(
    ("num_workers", "scheduler", "reason"),
    [
        (2, "tcp://127.0.0.1:8786", r"--workers .* and --scheduler .*; give one of them"),
        (0, None, r"--workers must be 1 to 1024, got 0"),
        (1_000_000, None, r"--workers must be 1 to 1024, got 1000000"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(
    num_workers: int, scheduler: str | None, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        EngineChoice(num_workers, scheduler)


def test_an_address_without_a_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    wanted = rf"{address} must be the address of a dask scheduler, such as tcp://"
    with pytest.raises(ClusterError, match=wanted), open_engine(EngineChoice(scheduler=address)):
        pass


@pytest.mark.parametrize("name", ["distil", "Python", *cluster_worker.PACKAGES])
def test_software_that_moves_bytes_must_be_the_coordinators(name: str) -> None:
    here = cluster_worker.software()
    assert cluster_worker.software_differences(here) == ()
    (difference,) = cluster_worker.software_differences({**here, name: "0.0.0"})
    assert difference == f"{name} must be 0.0.0, got {here[name]}"


def task_of(root: Path, run_id: str) -> ShardTask:
    writer: Any = SimpleNamespace(layout=SimpleNamespace(folder=LocalFolder(root)), run_id=run_id)
    return ShardTask(writer, root / "teacher.onnx", TeacherSettings(), root, False)


def test_a_store_must_be_readable_and_held_by_the_run(tmp_path: Path) -> None:
    root = tmp_path / "teacher.zarr"
    (unseen,) = cluster_worker.store_differences(task_of(root, "a" * 32))
    assert unseen == f"the store must be readable at {root}, got nothing there"
    with acquire_lease(LocalFolder(root)) as lease:
        (root / "zarr.json").write_text("{}")
        task = task_of(root, lease.run_id)
        assert cluster_worker.store_differences(task) == ()
        writer: Any = SimpleNamespace(**{**vars(task.writer), "run_id": "b" * 32})
        (held,) = cluster_worker.store_differences(replace(task, writer=writer))
        assert held == f"{root} must be held by run bbbbbbbb, got run {lease.run_id[:8]}"
    (free,) = cluster_worker.store_differences(task)
    assert free == f"{root} must be held by run {lease.run_id[:8]}, got no run"


def test_a_worker_without_the_images_is_refused(tmp_path: Path) -> None:
    people = SimpleNamespace(image_index=np.zeros(1, np.int64), image_name=("a.jpg",))
    plan: Any = SimpleNamespace(people=people, image_sha256=np.zeros((1, 32), np.uint8))
    writer = SimpleNamespace(shard_rows=lambda _: range(1))
    task: Any = SimpleNamespace(writer=writer, images=tmp_path)
    (missing,) = cluster_worker.image_differences(task, plan, 0)
    assert missing == f"image {tmp_path}/a.jpg must have sha256 {'0' * 12}, got no readable file"
