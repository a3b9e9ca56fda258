"""Early ends of stage one: on SIGTERM, on Ctrl-C, or because the disk is full.

Whole shards are kept in any case. This module decides whether the running shard is finished, and
writes the message at the end. The grace is the time that a shard may take to finish after a stop
was requested.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.errors import Stopped
from pipeline.machine import stop_signals_to
from pipeline.teacher_store.writer import TeacherStoreWriter
from pipeline.wording import Log, counted
from store_schemas.errors import StorageError, StoreError


class StopRequest:
    """Whether a run must stop, and when it does.

    Before the first shard and after the last one it stops at once. In between the running shard is
    finished if it ends within the grace by the rate so far, and is else given up at its next batch.
    A second request stops at once. Only the thread that runs the shards may use the methods.
    """

    def __init__(
        self,
        grace_seconds: float,
        log: Log = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grace = grace_seconds
        self._log = log
        self._clock = clock
        self._requested_at: float | None = None
        self._why = "stopped"
        self._writer: TeacherStoreWriter | None = None
        self._ends: list[int] = []
        self._started_at = 0.0
        self._views = 0
        self._can_wait = False
        self._has_logged = False

    def request(self, why: str = "stopped") -> None:
        """Request a stop.

        Raises:
            Stopped: no shard is running, or this is the second request.
        """
        is_first = self._requested_at is None
        self._why = why
        self._requested_at = self._clock() if is_first else self._requested_at
        if not (is_first and self._can_wait):
            raise Stopped(why)

    def is_requested(self) -> bool:
        """Return whether a stop was requested, so that no further shard may begin."""
        return self._requested_at is not None

    def add_views(self, count: int) -> None:
        """Count views that were added to the running shard, and give it up if it takes too long.

        Raises:
            Stopped: the shard would not be finished within the grace.
        """
        self._views += count
        if self._requested_at is None:
            return
        left = self._requested_at + self._grace - self._clock()
        needed = self._seconds_left()
        if needed > left:
            raise Stopped(self._why)
        if not self._has_logged:
            self._has_logged = True
            self._log(
                f"stopping when this shard is finished, in about {needed:.0f} s; a second request "
                f"stops at once"
            )

    def check(self) -> None:
        """Stop here if that was requested: between two shards, where nothing is lost.

        Raises:
            Stopped: a stop was requested.
        """
        if self._requested_at is not None:
            raise Stopped(self._why)

    def check_grace(self) -> None:
        """Stop here if the grace is over, although other processes still write shards.

        Raises:
            Stopped: a stop was requested, and the grace has passed since.
        """
        if self._requested_at is not None and self._clock() > self._requested_at + self._grace:
            raise Stopped(self._why)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Turn SIGTERM and Ctrl-C into stop requests; add the progress to errors that end the run.

        Signals are handled in the main thread only; elsewhere no handler is installed.

        Raises:
            Stopped: a stop was requested; names the number of written shards.
            StorageError: the disk is full or fails; names the number of written shards too.
        """
        with stop_signals_to(self._on_signal):
            try:
                yield
            except (Stopped, StorageError) as error:
                self._can_wait = False
                raise type(error)(
                    f"{error}; {self._describe_progress()}: continue with the same command and "
                    "--resume"
                ) from error

    def begin(self, writer: TeacherStoreWriter) -> None:
        """Set the store that is written, for the message at the end."""
        self._writer = writer

    @contextmanager
    def running_shards(self, views_of_shards: Sequence[int]) -> Iterator[None]:
        """Let a first request wait for the end of the running shard, within the context.

        views_of_shards: number of views of each shard, in the order in which they are written.
        """
        ends, total = [], 0
        for views in views_of_shards:
            total += views
            ends.append(total)
        self._ends, self._views, self._started_at = ends, 0, self._clock()
        self._can_wait = True
        try:
            yield
        finally:
            self._can_wait = False

    def _on_signal(self, number: int) -> None:
        self.request("stopped by SIGTERM" if number == signal.SIGTERM else "stopped")

    def _seconds_left(self) -> float:
        """Estimate the time until the running shard is finished, by the rate so far."""
        end = next((end for end in self._ends if end >= self._views), self._views)
        rate = self._views / max(self._clock() - self._started_at, 1e-9)
        return (end - self._views) / max(rate, 1e-9)

    def _describe_progress(self) -> str:
        writer = self._writer
        if writer is None:
            return "the plan is not written yet"
        try:
            there = writer.num_shards - len(writer.pending_shards())
        except (OSError, StoreError):
            return f"{writer.layout.folder} cannot be read now"
        return f"{writer.layout.folder} has {there} of {counted(writer.num_shards, 'shard')}"
