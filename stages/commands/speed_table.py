"""What ``distil benchmark cache`` shows: a row for each teacher, and where its time went."""

from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.benchmarks.caching_speed import Speed
from pipeline.wording import counted

_TITLES = ("views/s", "a core", "ms a view", "alone", "CPU", "/ limit")


def print_speeds(console: Console, speeds: tuple[Speed, ...]) -> None:
    """Print how near each run came to its limit, and what the columns say."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("teacher", overflow="fold")
    for title in _TITLES:
        table.add_column(title, justify="right", no_wrap=True)
    for speed in speeds:
        table.add_row(
            speed.name,
            f"{1 / speed.seconds:.0f}",
            f"{speed.views_per_second_and_core:.0f}",
            f"{1e3 * speed.seconds:.2f}",
            f"{1e3 * speed.teacher_seconds:.2f}",
            f"{1e3 * speed.cpu_seconds / speed.num_cores:.2f}",
            f"{speed.ratio:.2f}",
        )
    console.print(table)
    for speed in speeds:
        console.print(f"{speed.name}: {speed.breakdown.describe()}", highlight=False)
    first = speeds[0]
    views, cores = counted(first.num_views, "view"), counted(first.num_cores, "core")
    console.print(
        f"{views} on {cores}, digests and waiting for the disk "
        "included. a core: views that a second of one core's CPU time pays for. alone: ms of wall "
        "time a view of the teacher on crops that lie ready. CPU: ms of all CPU time a view, over "
        "the cores. / limit: ms a view over the larger of the two; 1 is the best there can be, and "
        "other programs on the machine add to it.",
        style="dim",
    )
