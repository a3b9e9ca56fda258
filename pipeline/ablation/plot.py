"""The learning curves of a sweep: mean OKS of the validation people against person-views."""

import importlib.util
import textwrap
from pathlib import Path

from pipeline.ablation.table import SweepTable

MISSING = (
    "no plot is drawn: matplotlib is not installed; install the extra plots (uv "
    "sync --extra plots) and run the same command again"
)

_LETTERS_OF_A_LINE = 72
"""Letters of the title that fit beside each other."""


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curves(table: SweepTable, path: Path) -> bool:
    """Draw a line for each run, runs of an arm in one colour; without any curve nothing is drawn.

    Returns whether the file was written.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = [run for run in table.runs if run.curve]
    if not runs:
        return False
    names = list(dict.fromkeys(run.arm for run in runs))
    colours = colormaps["tab10" if len(names) <= 10 else "tab20"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(table.question, _LETTERS_OF_A_LINE))
    axes = figure.add_subplot(xlabel="person-views (thousands)", ylabel="mean OKS, validation")
    labelled: set[str] = set()
    for run in runs:
        views, oks = zip(*run.curve, strict=True)
        axes.plot(
            [number / 1000 for number in views],
            oks,
            color=colours(names.index(run.arm) % 20),
            marker=".",
            label=None if run.arm in labelled else run.arm,
        )
        labelled.add(run.arm)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, format="png")
    return True
