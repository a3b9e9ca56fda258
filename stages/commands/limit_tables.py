"""Tables of the commands of ``distil benchmark`` whose figures stand beside limits."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column
from rich.text import Text

from pipeline.benchmarks.figures import Bounded
from pipeline.evaluation.inference_cost import LARGE_BATCH
from pipeline.wording import counted
from stages.benchmark_inference import (
    PUBLISHED_RATIO,
    PUBLISHED_SPEED_UP,
    InferenceFigures,
)
from stages.benchmark_loader import LoaderFigures
from stages.benchmark_train import SMALLEST_SAVING, TrainFigures
from stages.commands.terminal import figure_table


def print_bounded(console: Console, figures: Sequence[Bounded]) -> None:
    """Print every figure beside its limit."""
    table = figure_table(("measured", "limit", "holds"), Column("", overflow="fold"))
    for figure in figures:
        limit = "-"
        if figure.limit is not None:
            limit = f"{'<=' if figure.is_largest else '>='} {figure.limit:.3f}"
        style = "bold red" if figure.holds is False else ""
        cells = (figure.name, f"{figure.value:.3f}", limit, _HOLDS[figure.holds])
        table.add_row(*(Text(cell, style=style) for cell in cells))
    console.print(table)


_HOLDS = {True: "yes", False: "no", None: "-"}


def print_train_figures(console: Console, figures: TrainFigures) -> None:
    """Print the steps beside their limits, and what they took."""
    print_bounded(console, figures.bounded)
    loop, shared = figures.in_loop, figures.shared
    for step in figures.distilled:
        console.print(
            f"{step.student}: {1e3 * step.plain_seconds:.2f} ms a crop plainly, "
            f"{1e3 * step.distilled_seconds:.2f} ms with all five terms",
            highlight=False,
        )
    console.print(
        f"{loop.student} taught by {loop.teacher} ({counted(len(loop.terms), 'term')}): "
        f"{1e3 * loop.step_seconds:.1f} ms a crop with stored targets, "
        f"{1e3 * loop.loop_seconds:.1f} ms with the teacher in the loop, which takes "
        f"{1e3 * loop.teacher_seconds:.1f} ms alone; "
        f"peak memory {loop.step_peak_mb:.0f} MB and {loop.loop_peak_mb:.0f} MB",
        highlight=False,
    )
    console.print(
        f"{shared.student}, batch of {shared.batch_size}: {shared.alone_seconds:.2f} s a step by "
        f"one process, {shared.shared_seconds:.2f} s by two, by the clock",
        highlight=False,
    )
    console.print(
        f"The limit of the teacher in the loop is {SMALLEST_SAVING} of (step + teacher alone) / "
        "step. Times on a CPU are processor times, so other programs change them little; the clock "
        "of two processes needs two free cores.",
        style="dim",
    )


def print_loader_figures(console: Console, figures: LoaderFigures) -> None:
    """Print how busy the loader kept the device, and the cost of each epoch."""
    print_bounded(console, figures.bounded)
    busy = figures.busy
    console.print(
        f"{counted(busy.num_workers, 'worker')}: a crop takes {1e3 * busy.load_seconds:.2f} ms to "
        f"load with its targets, {1e3 * busy.step_seconds:.2f} ms in the step",
        highlight=False,
    )
    table = figure_table(("epoch s", "open s", "first s", "ms a person", "worker MB"), "people")
    for cost in figures.epochs:
        table.add_row(
            f"{cost.num_people:,}",
            f"{cost.epoch_seconds:.1f}",
            f"{cost.open_seconds:.2f}",
            f"{cost.first_seconds:.2f}",
            f"{1e3 * cost.seconds_per_person:.3f}",
            f"{cost.worker_mb:.0f}",
        )
    console.print(table)
    console.print(
        "Processor times. epoch s: one worker's, of a sample for large stores. open: opening the "
        "store and drawing the order. first: the first view of every shard. worker MB: private "
        "memory of a forked worker.",
        style="dim",
    )


def print_inference_figures(console: Console, figures: InferenceFigures) -> None:
    """Print what student and teacher take a person, and their ratios."""
    table = figure_table(
        ("M parameters", "M multiply-adds", "ms, batch 1", f"ms a person, batch {LARGE_BATCH}"),
        Column("", overflow="fold"),
    )
    for name, cost in figures.rows:
        table.add_row(
            name,
            f"{cost.num_parameters / 1e6:.2f}",
            f"{cost.num_multiply_adds / 1e6:.0f}",
            f"{cost.batch_1.minimum:.1f}",
            f"{cost.batch_64.minimum / LARGE_BATCH:.1f}",
        )
    console.print(table)
    print_bounded(console, figures.bounded)
    for note in figures.notes:
        console.print(note, highlight=False)
    console.print(
        f"In {figures.student_cost.runtime}, on one core, in turns; the shortest of all calls. The "
        f"paper has {PUBLISHED_RATIO} multiply-adds, without attention's, and {PUBLISHED_SPEED_UP} "
        "times the speed for distilpose-s and tokenpose-hrnet48.",
        style="dim",
    )
