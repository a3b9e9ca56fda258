"""Killed with SIGKILL at any moment, a run is resumed to the files of an uninterrupted one."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from pipeline.caching.settings import CacheTeacherConfig
from pipeline.coco.read_people import read_people
from pipeline.models.pose_networks import build_network
from pipeline.runs.checkpoints import describe_network, save_weights
from pipeline.settings import PeopleSettings
from pipeline.teacher_store.reader import TeacherStore
from stages import cache_teacher as stage
from stages.cache_teacher import cache_teacher
from tests.stages.conftest import patch_writing
from tests.support.clean_process import exit_code, start_process
from tests.support.file_operations import Operation, watch

NUM_RANDOM_KILLS = 20

MOMENTS: dict[str, tuple[str, str, int]] = {
    "before the lease is written": ("write", "t.zarr/.writer.json.", 0),
    "before the lease has its name": ("link", "t.zarr/.writer.json.", 0),
    "while the lease has two names": ("unlink", "t.zarr/.writer.json.", 0),
    "in the plan": ("create", "people/keypoints/.", 0),
    "in the plan's views": ("replace", "views/image_to_crop/.", 0),
    "before the plan is declared": ("create", "t.zarr/.zarr.json.", 0),
    "while the plan is declared": ("replace", "t.zarr/.zarr.json.", 0),
    "before the first file of a shard": ("create", "teacher/heatmaps/.c.1.", 0),
    "in a file of a shard": ("sync", "teacher/heatmaps/.c.1.", 0),
    "between the files of a shard": ("create", "teacher/outputs/.c.1.", 0),
    "between a shard's files and its receipt": ("create", "manifest/.000001.json.", 0),
    "while the receipt is published": ("replace", "manifest/.000001.json.", 0),
    "in the manifest's arrays": ("create", "manifest/lengths/.", 0),
    "between the manifest and complete": ("create", "t.zarr/.zarr.json.", 1),
    "while complete is declared": ("replace", "t.zarr/.zarr.json.", 1),
    "before the receipts go": ("unlink", "manifest/000000.json", 0),
    "between two receipts": ("unlink", "manifest/000001.json", 0),
    "before the lease is given back": ("unlink", "t.zarr/writer.json", 0),
}
"""Kind, part of the path, and how many such operations come before it."""


def kill_this_process() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@dataclass
class DeathBefore:
    """Kill this process before the operation of that number."""

    number: int
    count: int = 0

    def __call__(self, _: Operation) -> None:
        if self.count == self.number:
            kill_this_process()
        self.count += 1


@dataclass
class Killing:
    """An uninterrupted run, and copies of it that are killed and resumed."""

    inputs: Any
    config: CacheTeacherConfig

    def run(
        self, *, resume: bool = False, before: Callable[[Operation], None] | None = None
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch_writing(patch)
            watch(patch, before or (lambda _: None), syncs=False)
            cache_teacher(self.config, resume=resume)

    def run_and_log(self) -> None:
        """Leave the operations of a run in a file."""
        seen: list[tuple[str, str]] = []
        self.run(before=lambda it: seen.append((it.kind, str(it.path))))
        self.log.write_text(json.dumps(seen))

    def run_and_die_in_the_probe(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage, "check_teacher", lambda *_, **__: kill_this_process())
            self.run()

    @property
    def log(self) -> Path:
        folder: Path = self.inputs.folder
        return folder / "operations.json"

    def whole_run(self) -> None:
        """Run without interruption; remember operations, seconds and files, and start anew."""
        process = start_process(self.run_and_log)
        began = time.monotonic()
        assert exit_code(process) == 0
        self.seconds = time.monotonic() - began
        self.operations = [(kind, path) for kind, path in json.loads(self.log.read_text())]
        self.digests = self.files()
        self.start_anew()

    def files(self) -> dict[str, str]:
        found: dict[str, str] = self.inputs.digests(Path(self.config.store))
        return found

    def start_anew(self) -> None:
        store = Path(self.config.store)
        store.rename(self.inputs.folder / f"done-{time.monotonic_ns()}")

    def number_of(self, kind: str, part: str, skip: int) -> int:
        found = [i for i, (k, path) in enumerate(self.operations) if k == kind and part in path]
        return found[skip]

    def kill_before(self, number: int) -> None:
        """Run and die before the operation of that number."""
        process = start_process(partial(self.run, before=DeathBefore(number)))
        assert exit_code(process) == -signal.SIGKILL

    def check_resumed(self, what: object) -> None:
        """Resume, and compare every file with those of the uninterrupted run."""
        assert exit_code(start_process(partial(self.run, resume=True))) == 0, what
        assert self.files() == self.digests, what
        self.start_anew()


def killing(inputs: Any, **changes: object) -> Killing:
    """Four people in two shards, two views each."""

    def leave_four(document: dict[str, Any]) -> None:
        document["annotations"] = document["annotations"][:4]

    inputs.edit(leave_four)
    config = inputs.config(store=str(inputs.folder / "t.zarr"), views=1, **changes)
    found = Killing(inputs, config)
    found.whole_run()
    return found


def torch_teacher(inputs: Any) -> dict[str, object]:
    """Write a small teacher of random weights."""
    skeleton = read_people(inputs.annotations, None, PeopleSettings()).skeleton
    torch.manual_seed(0)  # of some random weights the probe rightly refuses the maps
    network = build_network("tokenpose-xs", 17)
    info = describe_network(
        network, skeleton, padding=1.25, seed=0, score_rule="one", heatmap_frame="half-pixel"
    )
    path = inputs.folder / "teacher.safetensors"
    save_weights(path, network, info)
    return {"teacher": path}


def test_a_run_killed_at_any_named_moment_is_resumed_to_the_same_files(inputs: Any) -> None:
    runs = killing(inputs)
    for name, moment in MOMENTS.items():
        runs.kill_before(runs.number_of(*moment))
        runs.check_resumed(name)


def test_a_run_killed_while_it_probes_leaves_nothing_in_the_way(inputs: Any) -> None:
    runs = killing(inputs)
    assert exit_code(start_process(runs.run_and_die_in_the_probe)) == -signal.SIGKILL
    assert list(runs.files()) == ["writer.json"]
    runs.check_resumed("probe")


@pytest.mark.parametrize(
    ("kind", "num_kills"),
    [("onnx", 6), ("torch", 3), *(pytest.param(k, NUM_RANDOM_KILLS, marks=pytest.mark.slow)
     for k in ("onnx", "torch"))],
)  # fmt: skip
def test_a_run_killed_at_random_moments_is_resumed_to_the_same_files(
    inputs: Any, kind: str, num_kills: int
) -> None:
    """Each kill hits a run of its own; one that comes too late finds a complete store."""
    runs = killing(inputs, **(torch_teacher(inputs) if kind == "torch" else {}))
    num_killed = 0
    for part in np.random.default_rng(0).uniform(0.02, 0.9, num_kills):
        process = start_process(runs.run)
        time.sleep(part * runs.seconds)
        process.kill()
        num_killed += exit_code(process) == -signal.SIGKILL
        runs.check_resumed((kind, part))
    assert num_killed >= num_kills // 3


def test_a_run_killed_again_and_again_is_resumed_to_the_same_files(inputs: Any) -> None:
    """Every run dies a little later than the one before; the last reads back whole."""
    runs = killing(inputs)
    number = len(runs.operations) // 3
    runs.kill_before(number)
    for more in (7, 19, 31):
        process = start_process(partial(runs.run, resume=True, before=DeathBefore(more)))
        assert exit_code(process) == -signal.SIGKILL
    assert exit_code(start_process(partial(runs.run, resume=True))) == 0
    assert runs.files() == runs.digests
    store = TeacherStore.open(Path(runs.config.store))
    rows = np.repeat(np.arange(store.people.num_instances), store.num_views).tolist()
    views = np.tile(np.arange(store.num_views), store.people.num_instances).tolist()
    assert np.isfinite(store.read(rows, views).keypoints).all()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # some 400 operations, two processes for each
def test_a_run_killed_before_any_operation_is_resumed_to_the_same_files(inputs: Any) -> None:
    runs = killing(inputs)
    for number in range(len(runs.operations)):
        runs.kill_before(number)
        runs.check_resumed((number, runs.operations[number]))
