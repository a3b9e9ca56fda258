"""What a training shows at a terminal: a bar, or sparse lines where nobody watches live."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 30.0


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("training", total=None, news="")

    def update(
        self,
        step: int,
        total: int,
        terms: Mapping[str, float],
        learning_rate: float,
        images_per_second: float,
    ) -> None:
        news = _news(terms, learning_rate, images_per_second)
        self._progress.update(self._task, completed=step, total=total, news=news)


class _Lines:
    def __init__(self) -> None:
        self._printed_at = 0.0

    def update(
        self,
        step: int,
        total: int,
        terms: Mapping[str, float],
        learning_rate: float,
        images_per_second: float,
    ) -> None:
        now = time.monotonic()
        if step < total and now - self._printed_at < _SECONDS_BETWEEN_LINES:
            return
        self._printed_at = now
        news = _news(terms, learning_rate, images_per_second)
        print(f"step {step}/{total}  {news}", file=sys.stderr, flush=True)


@contextmanager
def training_progress() -> Iterator[_Bar | _Lines]:
    """Show a training on stderr: losses by name, learning rate, images/s and the time left."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        BarColumn(bar_width=20),
        TextColumn("{task.completed:.0f}/{task.total} steps"),
        TextColumn("{task.fields[news]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress)


def _news(terms: Mapping[str, float], learning_rate: float, images_per_second: float) -> str:
    losses = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
    return f"{losses}  lr {learning_rate:.3g}  {images_per_second:.0f} images/s"
