"""What ``distil benchmark codec`` shows: a row for each way to store heatmaps."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.benchmarks.codec_study import CandidateFigures, CodecStudy
from pipeline.benchmarks.fidelity import Shifts
from pipeline.wording import counted

_COST = ("bytes", "raw / it", "encode", "decode")
_CHANGE = ("rms", "largest", "p99", "labelled", "shift", "OKS", "AP")


def print_codec_study(console: Console, study: CodecStudy) -> None:
    """Print every candidate, profiles in bold, and what the columns say."""
    split = len(_COST)
    for titles, cells in ((_COST, slice(1, split + 1)), (_CHANGE, slice(split + 1, None))):
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
        table.add_column("", overflow="fold", min_width=16)
        for title in titles:
            table.add_column(title, justify="right", no_wrap=True)
        for figures in study.figures:
            style = "bold green" if figures.candidate.profile else ""
            row = _row(figures, study)
            table.add_row(*(Text(cell, style=style) for cell in (row[0], *row[cells])))
        console.print(table)
    live = study.figures[0].fidelity.poses.live_ap
    console.print(
        f"{counted(study.num_people, 'person')} x {counted(study.num_views, 'view')}, typical peak "
        f"{study.typical_peak:.3f}, AP of live heatmaps {'-' if live is None else f'{live:.4f}'}. "
        "bytes: a view, all that the store keeps. raw / it: raw float16 heatmaps against it. "
        "encode, decode: views per second of one core. rms, largest: error of heat. p99, shift: "
        "of the points that DARK decodes, 99th percentile and largest, heatmap cells; labelled: "
        "p99 on view 0. OKS, AP: mean absolute and signed change on view 0.",
        style="dim",
    )


def _row(figures: CandidateFigures, study: CodecStudy) -> list[str]:
    found, poses = figures.fidelity, figures.fidelity.poses
    known = poses.live_ap is not None and poses.stored_ap is not None
    change = (poses.stored_ap or 0.0) - (poses.live_ap or 0.0)
    return [
        figures.candidate.name,
        f"{figures.bytes_per_view:.0f}",
        f"{study.raw_bytes / figures.bytes_per_view:.1f}",
        f"{figures.encoded_per_second:.0f}",
        f"{figures.unpacked_per_second:.0f}",
        f"{found.rms_error:.5f}",
        f"{found.largest_error:.4f}",
        _p99(found.all_keypoints),
        _p99(found.labelled_keypoints),
        f"{found.all_keypoints.largest:.3f}",
        f"{poses.mean_oks_change:.5f}",
        f"{change:+.5f}" if known else "-",
    ]


def _p99(shifts: Shifts | None) -> str:
    return "-" if shifts is None else f"{shifts.p99:.4f}"
