"""Stages whose teacher store lies in an object store do what they do with a folder."""

import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from cli import main
from pipeline.errors import RunFolderError
from pipeline.progress import NoProgress
from pipeline.runs.run_folder import RunFolder
from pipeline.storage.folder import open_folder
from pipeline.storage.lease import LEASE_NAME, acquire_lease
from pipeline.training.batch import TrainingBatch
from pipeline.training.data import BatchLoader
from pipeline.training.settings import ReplayedViewSettings, StoreViewSettings
from pipeline.training.store_sources import open_store_views
from pipeline.training.view_order import BlockOrder, ViewOrder
from stages.cache_teacher import cache_teacher
from stages.settings.training import TrainStudentConfig
from stages.train_student import train_student
from store_schemas.errors import LeaseError
from tests.support.object_server import ObjectServer
from tests.support.training_batches import tensors_of

INPUT_SIZE_HW = (64, 48)

WRITER = """
import sys
import pipeline.teacher_store.writer as writer
from pipeline.config import parse_config
from stages import cache_teacher as stage
writer.planned_rows_per_shard = lambda *_: 2
stage.provenance = lambda **_: {}
config = parse_config(stage.CacheTeacherConfig, sys.stdin.buffer.read(), "stdin")
stage.cache_teacher(config, resume="--resume" in sys.argv)
"""


def digests(location: str | Path) -> dict[str, str]:
    folder = open_folder(location)
    return {name: folder.sha256(name) for name in folder.names() if name != LEASE_NAME}


@pytest.fixture
def uploaded(store: Path, object_store: str) -> str:
    """The drawn people's store, in an object store."""
    local, remote = open_folder(store), open_folder(object_store)
    for name in local.names():
        remote.publish(name, local.read(name, 1 << 30))
    return object_store


def distil(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_caching_to_an_object_store_that_often_fails_leaves_the_bytes_of_a_folder(
    inputs: Any, object_store: str, object_server: ObjectServer
) -> None:
    cache_teacher(inputs.config())
    object_server.is_broken = lambda number, environ: number % 7 == 0
    result = cache_teacher(inputs.config(store=object_store))
    assert digests(object_store) == digests(inputs.store)
    assert result.num_bytes == open_folder(inputs.store).num_bytes()
    assert result.store == object_store
    with acquire_lease(open_folder(object_store)), pytest.raises(LeaseError, match="--take-over"):
        cache_teacher(inputs.config(store=object_store), resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("num_writes", [3, 40, 55, 70])
def test_caching_that_was_killed_is_resumed_to_the_bytes_of_a_folder(
    inputs: Any, object_store: str, object_server: ObjectServer, num_writes: int
) -> None:
    """At once: the lease of a process of this machine that is dead holds nobody up."""
    cache_teacher(inputs.config())
    config = inputs.config(store=object_store)
    arguments = [sys.executable, "-c", WRITER]
    process = subprocess.Popen([*arguments], stdin=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdin is not None

    def kill(_: int, environ: dict[str, Any]) -> bool:
        if environ["REQUEST_METHOD"] == "PUT" and object_server.asked["PUT"] >= num_writes:
            os.kill(process.pid, signal.SIGKILL)
            return True
        return False

    object_server.is_broken = kill
    process.communicate(config.to_json().encode())
    assert process.returncode == -signal.SIGKILL
    object_server.heal()
    assert digests(object_store) != digests(inputs.store)
    is_begun = open_folder(object_store).size("zarr.json") is not None
    cache_teacher(config, resume=is_begun)
    assert digests(object_store) == digests(inputs.store)


def batches(
    drawn: Any, location: str | Path, data: ReplayedViewSettings, workers: int
) -> list[TrainingBatch]:
    views = open_store_views(location, drawn.images, data, reads=frozenset({"heatmaps"}))
    dataset, order = views.dataset(INPUT_SIZE_HW), views.order(2, 0)
    assert isinstance(order, BlockOrder if data.view_order == "blocks" else ViewOrder)
    cpu = torch.device("cpu")
    loader = BatchLoader(dataset, order, workers, cpu, views.start_method)
    return [batch for epoch in range(2) for batch in loader.batches_of_epoch(epoch)]


def assert_equal(found: list[TrainingBatch], expected: list[TrainingBatch]) -> None:
    assert len(found) > 3
    for one, twin in zip(found, expected, strict=True):
        tensors, same = tensors_of(one), tensors_of(twin)
        assert tensors.keys() == same.keys() >= {"images", "heatmaps", "scale"}
        assert all(torch.equal(tensor, same[name]) for name, tensor in tensors.items())


def test_batches_are_those_of_a_folder_with_and_without_a_cache(
    drawn: Any, store: Path, uploaded: str, tmp_path: Path
) -> None:
    cached = ReplayedViewSettings(store_cache=tmp_path, view_order="shuffled")
    assert_equal(
        batches(drawn, uploaded, cached, 0), batches(drawn, store, ReplayedViewSettings(), 0)
    )
    blocks = ReplayedViewSettings(view_order="blocks")
    assert_equal(batches(drawn, uploaded, blocks, 0), batches(drawn, store, blocks, 0))


@pytest.mark.slow
def test_worker_processes_read_an_object_store(
    drawn: Any, store: Path, uploaded: str, tmp_path: Path
) -> None:
    # One that an earlier test started knows nothing of this server's address and keys.
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    cached = ReplayedViewSettings(store_cache=tmp_path, view_order="shuffled")
    assert_equal(
        batches(drawn, uploaded, cached, 2), batches(drawn, store, ReplayedViewSettings(), 0)
    )
    blocks = ReplayedViewSettings(view_order="blocks")
    assert_equal(batches(drawn, uploaded, blocks, 2), batches(drawn, store, blocks, 0))


def configure(drawn: Any, location: str, **data: object) -> TrainStudentConfig:
    return TrainStudentConfig.model_validate(
        {
            "architecture": "distilpose-xs",
            "epochs": 3,
            "num_loader_workers": 0,
            "num_threads": 1,
            "device": "cpu",
            "optimisation": {"batch_size": 4, "warmup_steps": 2},
            "images": drawn.images,
            "store": location,
            "data": data,
        }
    )


def order_of(config: TrainStudentConfig) -> str | None:
    assert isinstance(config.data, StoreViewSettings)
    return config.data.view_order


def test_a_run_goes_on_only_in_the_order_that_it_began_with(
    drawn: Any, store: Path, object_store: str, tmp_path: Path
) -> None:
    remote = configure(drawn, object_store)
    assert remote.store == object_store
    assert order_of(remote) == "blocks"
    assert order_of(configure(drawn, str(store))) == "shuffled"
    cached = configure(drawn, object_store, store_cache=tmp_path / "cache")
    assert order_of(cached) == "shuffled"
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.begin(remote, {}, resume=False)
    folder.check(remote, resume=True)
    folder.check(configure(drawn, str(store), view_order="blocks"), resume=True)
    with pytest.raises(RunFolderError, match=r'data\.view_order = "blocks", now it is "shuffled"'):
        folder.check(cached, resume=True)


class Killed(Exception):
    pass


class KilledAtStep(NoProgress):
    def update(self, done: int, *news: Any) -> None:
        if done >= 5:
            raise Killed


@pytest.mark.slow
def test_a_training_from_an_object_store_is_resumed_as_from_a_folder(
    drawn: Any, store: Path, uploaded: str, tmp_path: Path
) -> None:
    train_student(configure(drawn, str(store), view_order="blocks"), tmp_path / "whole")
    config = configure(drawn, uploaded)
    with pytest.raises(Killed):
        train_student(config, tmp_path / "run", progress=KilledAtStep())
    train_student(config, tmp_path / "run", resume=True)
    found, expected = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "whole")
    assert found.last_weights.read_bytes() == expected.last_weights.read_bytes()
    assert found.metrics.read_bytes() == expected.metrics.read_bytes()


@pytest.mark.slow
def test_commands_that_look_at_a_store_take_its_url(
    drawn: Any, store: Path, uploaded: str, tmp_path: Path
) -> None:
    evaluated = [
        distil("evaluate", "--store", location, "--output", tmp_path / str(i), *more).splitlines()
        for i, (location, more) in enumerate(
            [(store, ()), (uploaded, ()), (uploaded, ("--cache", tmp_path / "cache"))]
        )
    ]
    tables = [[line for line in lines if "wrote" not in line] for lines in evaluated]
    assert len(tables[0]) > 3
    assert uploaded in distil("store", "info", uploaded)
    distil("show", uploaded, "--images", drawn.images, "--output", tmp_path / "remote.png")
    distil("show", store, "--images", drawn.images, "--output", tmp_path / "local.png")
    assert (tmp_path / "remote.png").read_bytes() == (tmp_path / "local.png").read_bytes()
    checked = distil("store", "verify", uploaded, "--images", drawn.images, "--digests-only")
    assert "all that was checked is as it was written" in checked
    results = [(tmp_path / str(i) / "results.json").read_bytes() for i in range(3)]
    assert results[0] == results[1] == results[2]
