"""What ``distil benchmark store`` shows: a row for each reader of each store, then the costs."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.benchmarks.figures import StoreFigures
from pipeline.wording import counted

_READERS = ("views/s", "of raw float16", "cold views/s")
_COSTS = ("open s", "processor s", "worker MB", "views/s")


def print_store_benchmark(console: Console, figures: list[StoreFigures]) -> None:
    """Print every store's readers and costs, and what the columns say."""
    for found in figures:
        reading = found.reading
        raw = reading.raw_bytes_per_view
        console.print(
            Text(
                f"{found.store}: profile {reading.profile}, "
                f"{counted(reading.store_views, 'view')}, "
                f"{reading.bytes_per_view:.0f} bytes a view in all files, 1/"
                f"{raw / reading.bytes_per_view:.1f} of raw float16",
                style="bold",
            )
        )
        readers = _table(_READERS)
        for row in reading.readers:
            cold = "-" if row.cold_views_per_second is None else f"{row.cold_views_per_second:.0f}"
            style = "bold green" if row.name == "distil" else ""
            cells = (row.name, f"{row.warm_views_per_second:.0f}", f"{row.ratio_to_raw:.2f}", cold)
            readers.add_row(*(Text(cell, style=style) for cell in cells))
        console.print(readers)
        costs = _table(_COSTS)
        for cost in found.costs:
            costs.add_row(
                counted(cost.num_views, "view"),
                f"{cost.open_seconds:.2f}",
                f"{cost.open_processor_seconds:.2f}",
                f"{cost.worker_private_mb:.1f}",
                f"{cost.worker_views_per_second:.0f}",
            )
        console.print(costs)
        console.print(_limit(found))
    console.print(
        "views/s: of processor time, page cache full, 64 random views at a time, each "
        "reader in turns with raw float16 in one process; distil delivers whole records with "
        "checksums, the others maps. "
        "cold: by the clock, after the kernel was asked to drop the files. worker MB: private "
        "memory of a forked worker.",
        style="dim",
    )


def _table(titles: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold")
    for title in titles:
        table.add_column(title, justify="right")
    return table


def _limit(found: StoreFigures) -> str:
    reading = found.reading
    # not the speeds: each was measured beside raw float16, at another moment
    ratio = {row.name: row.ratio_to_raw for row in reading.readers}
    ours, limit = ratio["distil"], ratio["decoding alone, from memory"]
    copied = reading.memcpy_gb_per_second * 1e9 / reading.decoded_bytes_per_view
    lines = [
        f"{ours / limit:.2f} of what decoding alone allows; a copy of the decoded maps in memory "
        f"({reading.memcpy_gb_per_second:.1f} GB/s) would be {copied:.0f} views/s"
    ]
    if found.loader is not None:
        lines.append(
            f"a loader's batch of {found.loader.batch_size} takes {found.loader.ratio:.3f} times "
            f"as long with targets ({found.loader.without_targets * 1e3:.1f} ms without), the "
            f"median of {', '.join(f'{ratio:.3f}' for ratio in sorted(found.loader.ratios))}"
        )
    return "\n".join(lines) + "\n"
