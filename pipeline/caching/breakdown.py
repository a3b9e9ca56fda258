"""Where the time of stage one goes: CPU seconds by activity, of all threads of a process.

Decoding, warping, encoding and writing run in threads of their own and are measured there. What
else the process computed is the teacher's: its threads are those of a library and cannot be asked.
Cores that computed nothing for this process were idle: the disk was slow, a GPU was at work, or
other programs had the cores.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.cores import available_cores

MEASURED = ("decode", "warp", "encode", "write")
ACTIVITIES = ("decode", "warp", "teacher", "encode", "write", "idle")


@dataclass(frozen=True)
class Breakdown:
    """What the cores of one process, or of several, did in some span of time."""

    core_seconds: float = 0.0
    """Wall time x cores."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """By activity but ``idle``; the CPU's own time, so a thread that waits costs nothing."""
    wall_seconds: float = 0.0
    """Summed over processes."""
    teacher_wall_seconds: float = 0.0
    """In which the teacher looked at as many batches as it may at a time, or what comes to the
    same; what remains of the wall time, it waited for crops."""

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
            f"was at work {fed:.0%} of the time"
        )


def sum_breakdowns(breakdowns: Iterable[Breakdown]) -> Breakdown:
    """Return what all of them did together; spans must not overlap within one process."""
    total = Breakdown()
    for one in breakdowns:
        names = total.cpu_seconds.keys() | one.cpu_seconds.keys()
        total = Breakdown(
            total.core_seconds + one.core_seconds,
            {n: total.cpu_seconds.get(n, 0.0) + one.cpu_seconds.get(n, 0.0) for n in names},
            total.wall_seconds + one.wall_seconds,
            total.teacher_wall_seconds + one.teacher_wall_seconds,
        )
    return total


class WorkClock:
    """Adds up what threads measure; a lap is what came since the lap before."""

    def __init__(self, num_looks: int = 1) -> None:
        """Take how many batches the teacher may look at at a time."""
        self._num_looks = num_looks
        self._lock = threading.Lock()
        self._cores = available_cores()
        self._seconds: dict[str, float] = {}
        self._teacher_wall = 0.0
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
        """Count the wall time, within the context, as that of one look of the teacher."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            with self._lock:
                self._teacher_wall += spent / self._num_looks

    def lap(self) -> Breakdown:
        """Return what was measured since the last lap, and begin the next one."""
        with self._lock:
            wall, cpu = time.perf_counter(), time.process_time()
            spent, self._seconds = self._seconds, {}
            teacher_wall, self._teacher_wall = self._teacher_wall, 0.0
            wall_spent, cpu_spent = wall - self._wall, cpu - self._cpu
            self._wall, self._cpu = wall, cpu
        # An activity that is under way is counted at its end, maybe in the next lap.
        rest = cpu_spent - sum(spent.values())
        return Breakdown(
            wall_spent * self._cores, {**spent, "teacher": rest}, wall_spent, teacher_wall
        )
