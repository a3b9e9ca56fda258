"""Killed with SIGKILL at any moment, a run is resumed to the files of an uninterrupted one."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.models.pose_networks import build_network
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.checkpoints import describe_network, save_weights
from stages import cache_teacher as stage
from stages.cache_teacher import CacheTeacherConfig, cache_teacher
from tests.file_operations import Operation, watch

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


def in_child(work: Callable[[], object]) -> int:
    """Start a process that works and exits with 0."""
    child = os.fork()
    if child == 0:
        code = 1
        signal.alarm(120)
        # OpenMP's other threads are not forked, and waiting for them would never end.
        torch.set_num_threads(1)
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return child


def outcome(child: int) -> int:
    """Return the exit code of a process, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@dataclass
class Killing:
    """An uninterrupted run, and copies of it that are killed and resumed."""

    inputs: Any
    config: CacheTeacherConfig

    def run(
        self, *, resume: bool = False, before: Callable[[Operation], None] | None = None
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            watch(patch, before or (lambda _: None), syncs=False)
            cache_teacher(self.config, resume=resume)

    def whole_run(self) -> None:
        """Run without interruption; remember operations, seconds and files, and start anew."""
        log = self.inputs.folder / "operations.json"

        def work() -> None:
            seen: list[tuple[str, str]] = []
            self.run(before=lambda it: seen.append((it.kind, str(it.path))))
            log.write_text(json.dumps(seen))

        began = time.monotonic()
        assert outcome(in_child(work)) == 0
        self.seconds = time.monotonic() - began
        self.operations = [(kind, path) for kind, path in json.loads(log.read_text())]
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
        count = 0

        def before(_: Operation) -> None:
            nonlocal count
            if count == number:
                kill_this_process()
            count += 1

        assert outcome(in_child(lambda: self.run(before=before))) == -signal.SIGKILL

    def check_resumed(self, what: object) -> None:
        """Resume, and compare every file with those of the uninterrupted run."""
        assert outcome(in_child(lambda: self.run(resume=True))) == 0, what
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


def test_a_run_killed_while_it_probes_leaves_nothing_in_the_way(
    inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = killing(inputs)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "check_teacher", lambda *_, **__: kill_this_process())
        assert outcome(in_child(runs.run)) == -signal.SIGKILL
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
        child = in_child(runs.run)
        time.sleep(part * runs.seconds)
        os.kill(child, signal.SIGKILL)
        num_killed += outcome(child) == -signal.SIGKILL
        runs.check_resumed((kind, part))
    assert num_killed >= num_kills // 3


def test_a_run_killed_again_and_again_is_resumed_to_the_same_files(inputs: Any) -> None:
    """Every run dies a little later than the one before; the last reads back whole."""
    runs = killing(inputs)
    number = len(runs.operations) // 3
    runs.kill_before(number)
    for more in (7, 19, 31):
        count = 0

        def before(_: Operation, last: int = more) -> None:
            nonlocal count
            count += 1
            if count > last:
                kill_this_process()

        died = outcome(in_child(lambda: runs.run(resume=True, before=before)))
        assert died == -signal.SIGKILL
    assert outcome(in_child(lambda: runs.run(resume=True))) == 0
    assert runs.files() == runs.digests
    store = TeacherStore.open(Path(runs.config.store))
    rows = np.repeat(np.arange(store.people.num_instances), store.num_views).tolist()
    views = np.tile(np.arange(store.num_views), store.people.num_instances).tolist()
    assert np.isfinite(store.read(rows, views).keypoints).all()


@pytest.mark.slow
def test_a_run_killed_before_any_operation_is_resumed_to_the_same_files(inputs: Any) -> None:
    runs = killing(inputs)
    for number in range(len(runs.operations)):
        runs.kill_before(number)
        runs.check_resumed((number, runs.operations[number]))
