"""What ``distil benchmark crops`` shows: a row for each way to keep crops, then their loading."""

from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.benchmarks.crop_study import CropFigures
from pipeline.benchmarks.processes import CropLoading
from pipeline.wording import counted

_TITLES = ("bytes", "AP", "mean OKS", "OKS", "shift", "encode ms", "decode ms")


def print_crop_study(
    console: Console, figures: list[CropFigures], num_people: int, loading: CropLoading | None
) -> None:
    """Print every way to keep crops, and what the columns say."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("")
    for title in _TITLES:
        table.add_column(title, justify="right", no_wrap=True)
    for found in figures:
        table.add_row(
            found.name,
            f"{found.bytes_per_view:.0f}",
            "-" if found.ap is None else f"{found.ap:.4f}",
            f"{found.mean_oks:.4f}",
            f"{found.mean_oks_change:.4f}",
            f"{found.median_shift:.3f}",
            f"{found.encode_ms:.2f}",
            f"{found.decode_ms:.2f}",
        )
    console.print(table)
    console.print(
        f"View 0 of {counted(num_people, 'person')}, the teacher looking at the decoded JPEG. OKS: "
        "mean absolute change of a person's. shift: of labelled keypoints, median, heatmap cells; "
        "both against the lossless crop. encode, decode: processor time of one crop.",
        style="dim",
    )
    if loading is not None:
        console.print(
            f"a worker's batch of {loading.batch_size} with targets is {loading.speed_up:.2f} "
            f"times faster from crops ({1e3 * loading.crops_with_targets:.1f} ms) than from images "
            f"({1e3 * loading.images_with_targets:.1f} ms); targets add "
            f"{loading.share_of_targets:.1%} to a worker that decodes crops"
        )
