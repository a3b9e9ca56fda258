"""Progress of a stage on stderr, a bar at a terminal, else sparse lines; and a table of figures."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta

import rich.progress
from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from pipeline.progress import Progress

SECONDS_BETWEEN_LINES = 30.0

_FORMATS = {
    "lr": "lr {:.3g}",
    "images/s": "{:.0f} images/s",
    "views/s": "{:.0f} views/s",
    "people/s": "{:.1f} people/s",
    "MB": "{:.1f} MB",
    "waited": "waited for data {:.0f} %",
}
"""Formats of the figures that are not loss terms."""


def figure_table(
    titles: Iterable[str], name: Column | str = "", *, no_wrap: bool = False, pad_edge: bool = False
) -> Table:
    """Return a table without rows: the name of what a row is about, then its figures."""
    columns = (Column(title, justify="right", no_wrap=no_wrap) for title in titles)
    # With rich's usual space around each figure, 80 columns would cut them off.
    return Table(
        name,
        *columns,
        box=box.SIMPLE_HEAD,
        header_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=pad_edge,
    )


@contextmanager
def training_progress(console: Console | None = None) -> Iterator[Progress]:
    """Show the steps of a training, its losses by name, learning rate and images/s.

    The bar is there only between the first and the last step: messages before and after it go to
    stdout, which a bar would redirect.
    """
    with ExitStack() as stack:
        yield _WhileWorking(
            stack, lambda: _display("training", "steps", console, prints_the_end=True)
        )


@contextmanager
def caching_progress(console: Console | None = None) -> Iterator[Progress]:
    """Show the views that are predicted, views/s and the size of the shards that are written.

    The bar is there only while shards are written, as that of a training.
    """
    with ExitStack() as stack:
        yield _WhileWorking(stack, lambda: _display("teacher", "views", console, separator=", "))


def brief_progress(
    label: str, unit: str, console: Console | None = None
) -> AbstractContextManager[Progress]:
    """Show how many units of some work are done, and erase the bar at its end."""
    return _display(label, unit, console, is_erased=True)


class _WhileWorking:
    """Opens a display at the first update, and closes it at the one that completes the work."""

    def __init__(
        self, stack: ExitStack, open_display: Callable[[], AbstractContextManager[Progress]]
    ) -> None:
        self._stack, self._open_display = stack, open_display
        self._display: Progress | None = None

    def update(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        if self._display is None:
            self._display = self._stack.enter_context(self._open_display())
        self._display.update(done, total, figures)
        if done == total:
            self._stack.close()


class _BarAboveFigures(rich.progress.Progress):
    """Gives the figures a line of their own: beside the bar 80 columns would cut them off."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["figures"]:
                yield Text(f"  {task.fields['figures']}", style="dim")


class _Bar:
    def __init__(self, bar: rich.progress.Progress, unit: str, separator: str) -> None:
        self._bar, self._unit, self._separator = bar, unit, separator
        self._task = bar.add_task("", total=None, count="starts", figures="")

    def update(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        self._bar.update(
            self._task,
            completed=done,
            total=total,
            count=f"{done}/{total} {self._unit}",
            figures=_in_words(figures, self._separator),
        )


class _Lines:
    def __init__(self, console: Console, unit: str, separator: str, prints_the_end: bool) -> None:
        self._console, self._unit, self._separator = console, unit, separator
        self._prints_the_end = prints_the_end
        self._printed_at = time.monotonic()
        self._first: tuple[float, int] | None = None

    def update(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        now = time.monotonic()
        since, done_before = self._first = self._first or (now, done)
        is_end = self._prints_the_end and done == total
        if now - self._printed_at < SECONDS_BETWEEN_LINES and not is_end:
            return
        self._printed_at = now
        left = ""
        if done_before < done < total:
            seconds = (now - since) * (total - done) / (done - done_before)
            left = f", {timedelta(seconds=round(seconds))} left"
        figures_in_words = _in_words(figures, self._separator)
        line = f"{done}/{total} {self._unit}{left}  {figures_in_words}".rstrip()
        print(line, file=self._console.file, flush=True)


def _in_words(figures: Mapping[str, float], separator: str) -> str:
    formats = ((_FORMATS.get(name, f"{name} {{:.4g}}"), value) for name, value in figures.items())
    return separator.join(text.format(value) for text, value in formats)


@contextmanager
def _display(
    label: str,
    unit: str,
    console: Console | None,
    *,
    separator: str = "  ",
    prints_the_end: bool = False,
    is_erased: bool = False,
) -> Iterator[Progress]:
    """Yield a bar at a terminal, else lines: at most one every half minute.

    separator: what stands between two figures.
    prints_the_end: the last step gets a line of its own.
    is_erased: the bar is erased at the end.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console, unit, separator, prints_the_end)
        return
    columns = (
        TextColumn(label),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    # rich forgets steps that are older than the period, and shows no time left where one step takes
    # longer; without a period it averages over the last 1,000 updates.
    with _BarAboveFigures(
        *columns, console=console, transient=is_erased, speed_estimate_period=math.inf
    ) as bar:
        yield _Bar(bar, unit, separator)
