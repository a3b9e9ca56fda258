"""What is shown while stages work: a bar at a terminal, else few lines."""

import io
import sys
from collections.abc import Callable

import pytest
from rich.console import Console

from pipeline import progress as progress_module
from pipeline.progress import ShardProgress
from stages.commands import terminal
from stages.commands.terminal import brief_progress, caching_progress, training_progress

TERMS = {"loss": 1.25, "regression": 0.5, "simulated_heatmap": 0.25, "confidence": 0.125}


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(terminal, "time", clock)
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def console(*, is_terminal: bool, width: int = 80) -> tuple[Console, Callable[[], str]]:
    file = io.StringIO()
    return Console(file=file, force_terminal=is_terminal, width=width), file.getvalue


def test_a_terminal_shows_every_loss_by_name_in_80_columns() -> None:
    shown_on, shown = console(is_terminal=True)
    with training_progress(shown_on) as progress:
        progress.update(20, 100, {**TERMS, "lr": 1e-3, "images/s": 512.3})
    for text in ("20/100 steps", *TERMS, "0.125", "lr 0.001", "512 images/s"):
        assert text in shown()
    assert "…" not in shown()


def test_without_a_terminal_a_line_appears_every_half_minute_and_at_the_end(clock: Clock) -> None:
    shown_on, shown = console(is_terminal=False)
    with training_progress(shown_on) as progress:
        progress.update(0, 100)
        for step in range(1, 101):
            clock.now += 1.0
            progress.update(step, 100, {**TERMS, "lr": 1e-3, "images/s": 10})
    lines = shown().splitlines()
    assert [line.split()[0] for line in lines] == ["30/100", "60/100", "90/100", "100/100"]
    assert lines[0].startswith("30/100 steps, 0:01:10 left  loss 1.25")
    assert lines[0].endswith("simulated_heatmap 0.25  confidence 0.125  lr 0.001  10 images/s")


def test_caching_tells_views_a_second_and_bytes(clock: Clock) -> None:
    shown_on, shown = console(is_terminal=False)
    with caching_progress(shown_on) as progress:
        counters = ShardProgress(progress, 1000)
        clock.now += 40
        counters.add_views(200)
        counters.add_bytes(1_500_000)
        clock.now += 40
        counters.add_views(200)
    assert shown().splitlines() == [
        "200/1000 views, 0:02:40 left  5 views/s, 0.0 MB",
        "400/1000 views, 0:02:00 left  5 views/s, 1.5 MB",
    ]


def test_a_quick_evaluation_leaves_nothing_behind() -> None:
    shown_on, shown = console(is_terminal=False)
    with brief_progress("evaluating", "poses", shown_on) as progress:
        progress.update(94, 94)
    assert shown() == ""
    shown_on, shown = console(is_terminal=True)
    with brief_progress("evaluating", "poses", shown_on) as progress:
        progress.update(47, 94)
    assert "47/94 poses" in shown()
    assert shown().endswith("\x1b[2K")  # the bar's line is erased


def test_the_bar_of_caching_is_there_only_while_shards_are_written() -> None:
    """A bar redirects stdout: what a command prints before and after it must not be caught."""
    shown_on, shown = console(is_terminal=True)
    before = sys.stdout
    with caching_progress(shown_on) as progress:
        assert sys.stdout is before
        counters = ShardProgress(progress, 10)
        assert sys.stdout is not before
        counters.add_views(10)
        assert "10/10 views" not in shown()
        counters.add_bytes(2_000_000)
        assert sys.stdout is before
    assert "10/10 views" in shown()
    assert "2.0 MB" in shown()
