"""Progress of a stage: the protocol of its display, and counters that report to it."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol


class Progress(Protocol):
    """Shows how far a stage is."""

    def update(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        """Show that ``done`` of ``total`` units of work are done.

        figures: latest measurements by name, such as mean losses or a speed.
        """


class NoProgress:
    """Shows nothing."""

    def update(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        """Do nothing."""


NO_PROGRESS = NoProgress()


def summed(progress: Progress, total: int) -> Callable[[int], None]:
    """Return a function that takes the size of each piece of work and reports the sum.

    total: the largest sum that is reported, even if more was done than expected.
    """
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        progress.update(min(done, total), total)

    return add


class ShardProgress:
    """Counts the views that a teacher predicts and the bytes of the shards that are written."""

    def __init__(self, progress: Progress, total_views: int) -> None:
        self._progress, self._total = progress, total_views
        self._views = self._bytes = 0
        self._started = time.monotonic()
        if total_views:
            self._report()

    def add_views(self, count: int) -> None:
        self._views += count
        if self._views < self._total:  # the last views are reported with the bytes of their shard
            self._report()

    def add_bytes(self, count: int) -> None:
        self._bytes += count
        self._report()

    def _report(self) -> None:
        rate = self._views / max(time.monotonic() - self._started, 1e-9)
        figures = {"views/s": rate, "MB": self._bytes / 1e6}
        self._progress.update(self._views, self._total, figures)
