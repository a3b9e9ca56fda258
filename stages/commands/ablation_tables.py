"""Tables of ``distil ablate``."""

from rich.console import Console
from rich.text import Text

from pipeline.ablation.table import SweepTable, in_words
from pipeline.wording import counted
from stages.ablate import Forecast
from stages.commands.terminal import figure_table


def print_table(console: Console, table: SweepTable) -> None:
    """Print the question and a row for each arm; table.md has the rest."""
    console.print(Text(table.question, style="bold"))
    shown = figure_table(
        ("seeds", "AP", "AP, score 1", "mean OKS", "OKS - baseline", "AP - baseline"), "arm"
    )
    for row in table.arms:
        is_baseline = row.arm == row.baseline
        shown.add_row(
            row.arm,
            str(len(row.seeds)),
            _figure(row.ap_own_score),
            _figure(row.ap_score_one),
            _figure(row.mean_oks),
            "baseline" if is_baseline else in_words(row.oks_difference),
            "" if is_baseline else in_words(row.ap_difference),
        )
    console.print(shown)
    for note in table.notes:
        console.print(Text(note, style="dim"))


def print_forecast(console: Console, found: Forecast) -> None:
    """Print what a sweep would train, and what it would take."""
    console.print(Text(found.question, style="bold"))
    shown = figure_table(
        ("epochs", "person-views", "state", "bytes a view", "disk", "hours"), "training"
    )
    for run in found.runs:
        shown.add_row(
            run.name,
            str(run.epochs),
            f"{run.person_views:,}",
            run.state,
            "-" if run.bytes_per_view is None else f"{run.bytes_per_view:.0f}",
            f"{run.bytes_on_disk / 1e6:.0f} MB",
            f"{run.seconds / 3600:.2f}",
        )
    console.print(shown)
    disk = sum(run.bytes_on_disk for run in found.runs)
    console.print(
        f"{counted(len(found.runs), 'training')}, {disk / 1e6:.0f} MB of checkpoints, about "
        f"{found.seconds / 3600:.1f} hours. Hours are measured: of trainings that were begun, by "
        "their own speed; else by passes of the network alone, which is the least they take."
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
