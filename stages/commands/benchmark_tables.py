"""Tables of the commands of ``distil benchmark``."""

from rich.console import Console
from rich.table import Column
from rich.text import Text

from pipeline.benchmarks.caching_speed import Speed
from pipeline.benchmarks.codec_study import CandidateFigures, CodecStudy
from pipeline.benchmarks.crop_study import CropStudy
from pipeline.benchmarks.fidelity import Shifts
from pipeline.benchmarks.figures import StoreFigures
from pipeline.wording import counted
from stages.commands.terminal import figure_table


def print_codec_study(console: Console, study: CodecStudy) -> None:
    """Print every candidate, profiles in bold, and what the columns say."""
    for titles, cells in (
        (("bytes", "raw / it", "encode", "decode"), slice(1, 5)),
        (("rms", "largest", "p99", "labelled", "shift", "OKS", "AP"), slice(5, None)),
    ):
        name = Column("", overflow="fold", min_width=16)
        table = figure_table(titles, name, no_wrap=True, pad_edge=True)
        for figures in study.figures:
            style = "bold green" if figures.candidate.profile else ""
            row = _codec_row(figures, study)
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


def _codec_row(figures: CandidateFigures, study: CodecStudy) -> list[str]:
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


def print_crop_study(console: Console, study: CropStudy) -> None:
    """Print every way to keep crops, and what the columns say."""
    table = figure_table(
        ("bytes", "AP", "mean OKS", "OKS", "shift", "encode ms", "decode ms"),
        no_wrap=True,
        pad_edge=True,
    )
    for found in study.figures:
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
        f"View 0 of {counted(study.num_people, 'person')}, predicted from the decoded JPEG. OKS: "
        "mean absolute change of a person's. shift: of labelled keypoints, median, heatmap cells; "
        "both against the lossless crop. encode, decode: processor time of one crop.",
        style="dim",
    )
    if loading := study.loading:
        console.print(
            f"a worker's batch of {loading.batch_size} with targets is {loading.speed_up:.2f} "
            f"times faster from crops ({1e3 * loading.crops_with_targets:.1f} ms) than from images "
            f"({1e3 * loading.images_with_targets:.1f} ms); targets add "
            f"{loading.share_of_targets:.1%} to a worker that decodes crops"
        )


def print_speeds(console: Console, speeds: tuple[Speed, ...]) -> None:
    """Print how near each run came to its limit, and what the columns say."""
    table = figure_table(
        ("views/s", "a core", "ms a view", "alone", "CPU", "/ limit"),
        Column("teacher", overflow="fold"),
        no_wrap=True,
    )
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
        readers = figure_table(
            ("views/s", "of raw float16", "cold views/s"), Column("", overflow="fold")
        )
        for row in reading.readers:
            cold = "-" if row.cold_views_per_second is None else f"{row.cold_views_per_second:.0f}"
            style = "bold green" if row.name == "distil" else ""
            cells = (row.name, f"{row.warm_views_per_second:.0f}", f"{row.ratio_to_raw:.2f}", cold)
            readers.add_row(*(Text(cell, style=style) for cell in cells))
        console.print(readers)
        costs = figure_table(
            ("open s", "processor s", "worker MB", "views/s"), Column("", overflow="fold")
        )
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
        "cold: by the clock, after the kernel has dropped the files. worker MB: private "
        "memory of a forked worker.",
        style="dim",
    )


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
