"""What stages show on stderr while they work: a bar, or sparse lines where nobody watches."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 30.0


class TrainingProgress:
    """Shows losses by name, learning rate, images/s and the time left."""

    def __init__(self, display: "_Display") -> None:
        self._display = display

    def update(
        self,
        step: int,
        total: int,
        terms: Mapping[str, float],
        learning_rate: float,
        images_per_second: float,
    ) -> None:
        losses = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        news = f"{losses}  lr {learning_rate:.3g}  {images_per_second:.0f} images/s"
        self._display.show(step, total, news)


class CachingProgress:
    """Counts views and bytes, and shows both, views/s and the time left."""

    def __init__(self, display: "_Display", total_views: int) -> None:
        self._display = display
        self._total, self._views, self._bytes = total_views, 0, 0
        self._started = time.monotonic()

    def add_views(self, count: int) -> None:
        self._views += count
        self._show()

    def add_bytes(self, count: int) -> None:
        self._bytes += count
        self._show()

    def _show(self) -> None:
        rate = self._views / max(time.monotonic() - self._started, 1e-9)
        news = f"{rate:.0f} views/s, {self._bytes / 1e6:.1f} MB"
        self._display.show(self._views, self._total, news)


@contextmanager
def training_progress(console: Console | None = None) -> Iterator[TrainingProgress]:
    """Watch a training; it tells ``update`` of its steps."""
    with _display("training", "steps", console, says_the_end=True) as display:
        yield TrainingProgress(display)


@contextmanager
def caching_progress(total_views: int, console: Console | None = None) -> Iterator[CachingProgress]:
    """Watch the teacher at work."""
    with _display("teacher", "views", console) as display:
        yield CachingProgress(display, total_views)


@contextmanager
def evaluation_progress(console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Watch poses being estimated; what is yielded wants to hear (done, total)."""
    with _display("evaluating", "poses", console, leaves_no_trace=True) as display:
        yield display.show


@contextmanager
def benchmark_progress(
    unit: str, console: Console | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Watch a measurement; what is yielded wants to hear (done, total) of the unit."""
    with _display("measuring", unit, console, leaves_no_trace=True) as display:
        yield display.show


@contextmanager
def checking_progress(console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Watch a store being verified; what is yielded wants to hear (done, total)."""
    with _display("checking", "shards, images, views", console, leaves_no_trace=True) as display:
        yield display.show


class _Display(Protocol):
    def show(self, done: int, total: int, news: str = "") -> None: ...


class _BarAboveNews(Progress):
    """Gives the news a line of their own: beside the bar 80 columns would cut them off."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["news"]:
                yield Text(f"  {task.fields['news']}", style="dim")


class _Bar:
    def __init__(self, progress: Progress, unit: str) -> None:
        self._progress, self._unit = progress, unit
        self._task = progress.add_task("", total=None, count="starts", news="")

    def show(self, done: int, total: int, news: str = "") -> None:
        count = f"{done}/{total} {self._unit}"
        self._progress.update(self._task, completed=done, total=total, count=count, news=news)


class _Lines:
    def __init__(self, console: Console, unit: str, *, says_the_end: bool) -> None:
        self._console, self._unit, self._says_the_end = console, unit, says_the_end
        self._printed_at = time.monotonic()

    def show(self, done: int, total: int, news: str = "") -> None:
        now = time.monotonic()
        is_end = self._says_the_end and done == total
        if now - self._printed_at < SECONDS_BETWEEN_LINES and not is_end:
            return
        self._printed_at = now
        line = f"{done}/{total} {self._unit}  {news}".rstrip()
        print(line, file=self._console.file, flush=True)


@contextmanager
def _display(
    label: str,
    unit: str,
    console: Console | None,
    *,
    says_the_end: bool = False,
    leaves_no_trace: bool = False,
) -> Iterator[_Display]:
    """Yield a bar at a terminal, else lines: at most one every half minute.

    says_the_end: the last step gets a line of its own.
    leaves_no_trace: the bar vanishes when it is full.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console, unit, says_the_end=says_the_end)
        return
    columns = (
        TextColumn(label),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with _BarAboveNews(*columns, console=console, transient=leaves_no_trace) as progress:
        yield _Bar(progress, unit)
