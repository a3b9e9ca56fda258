"""How near stage one comes to the limit that its teacher and its cores set.

A run cannot be faster than the teacher alone, nor than all CPU work spread evenly over the cores.
The null teacher takes no time and returns maps of the real one, so all other work remains.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.caching.breakdown import Breakdown
from pipeline.caching.estimate import run_trial
from pipeline.caching.settings import TeacherInputs
from pipeline.coco.people import People
from pipeline.machine import available_cores
from pipeline.teachers import HeatmapNetwork, Teacher
from pipeline.teachers.network import Prediction
from pipeline.teachers.probe import Probe

_SECONDS_ALONE = 2.0


class NullNetwork:
    """A network that returns the same raw maps for all images; all else is another network's."""

    def __init__(self, network: HeatmapNetwork, maps: NDArray[np.float32]) -> None:
        """Copy the properties of a network; maps: (B, K, Hh, Wh) of one batch."""
        self._maps = maps
        self.kind = "null"
        self.architecture = "null"
        self.sha256 = "0" * 64
        self.input_size_hw = network.input_size_hw
        self.heatmap_size_hw = network.heatmap_size_hw
        self.num_keypoints = network.num_keypoints
        self.keypoint_names = network.keypoint_names
        self.heatmap_frame = network.heatmap_frame
        self.fixed_batch_size = network.fixed_batch_size
        self.num_threads = network.num_threads
        self.token_shape = network.token_shape

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        """Return (B, K, Hh, Wh) raw heatmaps, the same for all images."""
        return Prediction(self._maps[: len(images)].copy())

    def execution(self) -> dict[str, Any]:
        """Return an empty recipe: no arithmetic is done."""
        return {}


@dataclass(frozen=True)
class Speed:
    """Speed of stage one with one teacher; all seconds are those of a view."""

    name: str
    num_views: int
    num_cores: int
    seconds: float
    """Wall time of the run."""
    teacher_seconds: float
    """Wall time of the teacher alone, on crops that lie ready."""
    cpu_seconds: float
    """CPU time of all threads, the teacher's included."""
    breakdown: Breakdown

    @property
    def views_per_second_and_core(self) -> float:
        """Views per second of CPU time, which other programs on the machine do not change."""
        return 1 / self.cpu_seconds

    @property
    def limit_seconds(self) -> float:
        """Wall time that no run can fall below."""
        return max(self.teacher_seconds, self.cpu_seconds / self.num_cores)

    @property
    def ratio(self) -> float:
        """Wall time over the limit."""
        return self.seconds / self.limit_seconds


def null_teacher(teacher: Teacher, probe: Probe) -> Teacher:
    """Return a teacher that takes no time and whose maps are those of the given one."""
    batch_size = teacher.settings.batch_size
    crops = np.resize(probe.crops, (batch_size, *probe.crops.shape[1:]))
    raw = teacher.network.forward(teacher.preprocess(crops)).heatmaps
    return Teacher(NullNetwork(teacher.network, raw), teacher.settings)


def measure_speed(
    name: str,
    config: TeacherInputs,
    people: People,
    teacher: Teacher,
    probe: Probe,
    threshold: float,
    num_people: int,
    scratch: Path | None,
    on_progress: Callable[[int], None],
) -> Speed:
    """Write a store of some people and compare its time with the limit.

    The teacher alone is measured before and after, as the load of the machine changes.

    Raises:
        PeopleError: an image cannot be read.
    """
    flips = people.skeleton.flip_indices
    before = _alone(teacher, probe.crops, flips)
    trial = run_trial(
        config,
        people,
        teacher,
        threshold,
        num_people,
        scratch=scratch,
        in_whole_shards=True,
        on_progress=on_progress,
    )
    alone = (before + _alone(teacher, probe.crops, flips)) / 2
    views = trial.num_views
    return Speed(
        name=name,
        num_views=views,
        num_cores=available_cores(),
        seconds=trial.seconds / views,
        teacher_seconds=alone * trial.num_slots / views,
        cpu_seconds=sum(trial.breakdown.cpu_seconds.values()) / views,
        breakdown=trial.breakdown,
    )


def _alone(teacher: Teacher, crops: NDArray[np.uint8], flips: tuple[int, ...]) -> float:
    """Return the seconds of a view, in full batches, as many at a time as in stage one."""
    batch = np.resize(crops, (teacher.settings.batch_size, *crops.shape[1:]))
    num_parallel = teacher.batches_at_a_time(available_cores())

    def views_per_second(_: int) -> float:
        teacher.predict(batch, flips)
        count, started = 0, time.perf_counter()
        while count < 2 or time.perf_counter() - started < _SECONDS_ALONE:
            teacher.predict(batch, flips)
            count += 1
        return count * len(batch) / (time.perf_counter() - started)

    with ThreadPoolExecutor(num_parallel) as pool:
        return 1 / sum(pool.map(views_per_second, range(num_parallel)))
