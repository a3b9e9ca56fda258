"""What stage one shows at a terminal: a bar with views/s and bytes, or sparse lines."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 30.0


class CachingProgress:
    """Counts views and bytes; shows them on a bar, or on a line every half minute."""

    def __init__(self, total_views: int, progress: Progress | None) -> None:
        self._total, self._views, self._bytes = total_views, 0, 0
        self._started = self._printed_at = time.monotonic()
        self._bar = progress
        self._task = progress.add_task("", total=total_views, news="") if progress else None

    def add_views(self, count: int) -> None:
        self._views += count
        self._show()

    def add_bytes(self, count: int) -> None:
        self._bytes += count
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        rate = self._views / max(now - self._started, 1e-9)
        news = f"{rate:.0f} views/s, {self._bytes / 1e6:.1f} MB"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._views, news=news)
        elif now - self._printed_at > _SECONDS_BETWEEN_LINES:
            self._printed_at = now
            print(f"{self._views}/{self._total} views, {news}", file=sys.stderr, flush=True)


@contextmanager
def caching_progress(total_views: int) -> Iterator[CachingProgress]:
    """Show the teacher at work on stderr: views done, views/s, bytes and the time left."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield CachingProgress(total_views, None)
        return
    columns = (
        TextColumn("teacher"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f} views  {task.fields[news]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        yield CachingProgress(total_views, progress)
