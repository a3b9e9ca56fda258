"""Time of stage one: CPU seconds by activity, over all threads of a process.

Decoding, warping, encoding and writing run in threads of their own and are measured there. The rest
of the process's CPU time is the teacher's, as the threads of its library cannot be measured.
Cores that computed nothing for this process were idle: the disk was slow, a GPU was at work, or
other programs used the cores.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.machine import available_cores

ACTIVITIES = ("decode", "warp", "teacher", "encode", "write", "idle")


@dataclass(frozen=True)
class Breakdown:
    """CPU and wall time of one process, or of several, over a span of time."""

    core_seconds: float = 0.0
    """Wall time x cores."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """CPU time of every activity but ``idle``; a thread that waits uses none."""
    wall_seconds: float = 0.0
    """Wall time, summed over processes."""
    teacher_wall_seconds: float = 0.0
    """Wall time in which the teacher predicted as many batches at a time as it may (half of them
    count half)."""
    waited_seconds: dict[str, float] = field(default_factory=dict)
    """Wall time in which no batch could be handed to the teacher, by what was missing: ``crops``,
    which are decoded and warped, or ``encoding`` or ``writing``, for which predictions wait. The
    teacher may be at work meanwhile, on the batches before."""

    def seconds(self, activity: str) -> float:
        """Return the CPU seconds of an activity, or the idle core-seconds."""
        if activity == "idle":
            return max(self.core_seconds - sum(self.cpu_seconds.values()), 0.0)
        return self.cpu_seconds.get(activity, 0.0)

    def describe(self) -> str:
        """Return one line: seconds and share of wall time x cores of every activity."""
        whole = max(self.core_seconds, 1e-9)
        parts = [
            f"{activity} {self.seconds(activity):.1f} s ({self.seconds(activity) / whole:.0%})"
            for activity in ACTIVITIES
        ]
        fed = self.teacher_wall_seconds / max(self.wall_seconds, 1e-9)
        return (
            f"CPU time of {self.core_seconds:.1f} core-seconds: {', '.join(parts)}; the teacher "
            f"was at work {fed:.0%} of the time{self._waited_for(1 - fed)}"
        )

    def _waited_for(self, idle: float) -> str:
        """Return what the teacher waited for in that share of the time, by the waits measured."""
        waited = sum(self.waited_seconds.values())
        if not waited or round(100 * idle) < 1:
            return ""
        parts = (f"{what} {idle * t / waited:.0%}" for what, t in self.waited_seconds.items())
        return f", and waited for {', '.join(parts)}"


def sum_breakdowns(breakdowns: Iterable[Breakdown]) -> Breakdown:
    """Return the sum; the spans of one process must not overlap."""
    total = Breakdown()
    for one in breakdowns:
        total = Breakdown(
            total.core_seconds + one.core_seconds,
            _added(total.cpu_seconds, one.cpu_seconds),
            total.wall_seconds + one.wall_seconds,
            total.teacher_wall_seconds + one.teacher_wall_seconds,
            _added(total.waited_seconds, one.waited_seconds),
        )
    return total


def _added(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    names = sorted(one.keys() | other.keys())
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in names}


class WorkClock:
    """Adds up the times that threads measure; a lap is the sum since the lap before."""

    def __init__(self, num_parallel: int = 1) -> None:
        """Start the first lap.

        num_parallel: batches that the teacher may predict at a time.
        """
        self._num_parallel = num_parallel
        self._lock = threading.Lock()
        self._cores = available_cores()
        self._seconds: dict[str, float] = {}
        self._teacher_wall = 0.0
        self._waited: dict[str, float] = {}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @contextmanager
    def measure(self, activity: str) -> Iterator[None]:
        """Count the CPU time of this thread, within the context, for an activity."""
        started = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - started
            with self._lock:
                self._seconds[activity] = self._seconds.get(activity, 0.0) + spent

    @contextmanager
    def teacher_at_work(self) -> Iterator[None]:
        """Count the wall time, within the context, as that of one batch of the teacher."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            with self._lock:
                self._teacher_wall += spent / self._num_parallel

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Count the wall time, within the context, in which the teacher is given no batch.

        what: ``crops``, ``encoding`` or ``writing``.
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            with self._lock:
                self._waited[what] = self._waited.get(what, 0.0) + spent

    def lap(self) -> Breakdown:
        """Return the times since the last lap, and begin the next one."""
        with self._lock:
            wall, cpu = time.perf_counter(), time.process_time()
            spent, self._seconds = self._seconds, {}
            teacher_wall, self._teacher_wall = self._teacher_wall, 0.0
            waited, self._waited = self._waited, {}
            wall_spent, cpu_spent = wall - self._wall, cpu - self._cpu
            self._wall, self._cpu = wall, cpu
        # An activity that has not ended yet counts in the lap in which it ends.
        rest = cpu_spent - sum(spent.values())
        return Breakdown(
            wall_spent * self._cores, {**spent, "teacher": rest}, wall_spent, teacher_wall, waited
        )
