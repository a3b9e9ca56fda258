"""A power cut behind any operation on the disk is healed by a resumed run."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.settings import HeatmapFrame
from pipeline.storage import files
from pipeline.teacher_store import writer
from pipeline.teachers import Teacher, opening
from pipeline.teachers.network import Prediction
from stages.cache_teacher import cache_teacher
from tests.support.file_operations import Disk, Left, Operation, lay_out, watch

EXTREMES = [("none", "none"), ("all", "none"), ("all", "half")]
"""What survives of names and of data that nobody waited for."""


class InstantNetwork:
    """Sees how bright each cell of a small crop is; keypoints differ by a factor."""

    kind, architecture, sha256 = "fake", "instant", "00" * 32
    input_size_hw, heatmap_size_hw, num_keypoints = (32, 24), (8, 6), 17
    keypoint_names: tuple[str, ...] | None = None
    heatmap_frame: HeatmapFrame = "half-pixel"
    fixed_batch_size: int | None = None
    num_threads: int | None = None
    token_shape: tuple[int, tuple[int, int]] | None = None

    def execution(self) -> dict[str, object]:
        return {}

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        cells = images.mean(axis=1).reshape(-1, 8, 4, 6, 4).mean(axis=(2, 4))
        factors = np.linspace(0.1, 0.9, 17, dtype=np.float32)
        return Prediction(np.asarray(cells[:, None] * factors[:, None, None]))


@pytest.fixture
def quick(inputs: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Four people in two shards, a teacher that takes no time, and no waiting for the disk."""

    def leave_four(document: dict[str, Any]) -> None:
        document["annotations"] = document["annotations"][:4]

    inputs.edit(leave_four)
    monkeypatch.setattr(
        opening, "open_teacher", lambda _, settings: Teacher(InstantNetwork(), settings)
    )
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(writer, "planned_rows_per_shard", lambda *_: 2)
    return inputs


class Recording:
    """A whole run, operation by operation, and what its store holds in the end."""

    def __init__(self, inputs: Any) -> None:
        self.inputs = inputs
        self.operations: list[Operation] = []
        self.root = inputs.folder / "disk"
        self.config = inputs.config(store=str(self.root / "new" / "t.zarr"), views=1)
        self.root.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            watch(patch, after=self.operations.append, syncs=False)
            cache_teacher(self.config)
        self.digests = inputs.digests(self.root)

    def prefixes(self) -> Iterator[tuple[int, Disk]]:
        """Yield the disk before the first operation, and behind each."""
        disk = Disk(self.root)
        yield 0, disk
        for number, operation in enumerate(self.operations, 1):
            disk.apply(operation)
            yield number, disk

    def heals(self, left: Left) -> bool:
        """Resume from what a power cut left and compare every file with the whole run's."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        lay_out(left, self.root)
        cache_teacher(self.config, resume=True)
        return bool(self.inputs.digests(self.root) == self.digests)


def without_random_names(left: Left) -> frozenset[tuple[str, bytes | None]]:
    """Return what makes a difference: temporary files and leases carry random names and ids."""
    return frozenset(
        (name.split(".distil")[0][:-33] if files.is_temporary(Path(name)) else name, data)
        for name, data in left.items()
    )


def check(recording: Recording, every: int, num_random: int) -> int:
    """Cut the power behind every n-th operation in all ways, and return how often."""
    seen = set()
    for number, disk in recording.prefixes():
        if number % every:
            continue
        ways = [disk.cut(*extreme) for extreme in EXTREMES]
        ways += [disk.cut("some", "some", seed) for seed in range(number, number + num_random)]
        for way, left in enumerate(ways):
            state = without_random_names(left)
            if state in seen:
                continue
            seen.add(state)
            assert recording.heals(left), (number, way, recording.operations[number - 1])
    return len(seen)


def test_the_disk_model_knows_what_was_promised(quick: Any) -> None:
    """Behind the last operation every way to lose what was not promised leaves the same store."""
    recording = Recording(quick)
    *_, (_, disk) = recording.prefixes()
    names = {name for name in disk.cut("all", "all") if disk.cut("all", "all")[name] is not None}
    assert names == recording.digests.keys()
    assert disk.cut("none", "none") == disk.cut("all", "all")


def test_a_power_cut_behind_some_operations_is_healed(quick: Any) -> None:
    assert check(Recording(quick), every=37, num_random=1) > 10


@pytest.mark.slow
def test_a_power_cut_behind_every_operation_is_healed(quick: Any) -> None:
    num_states = check(Recording(quick), every=1, num_random=2)
    assert num_states > 200
