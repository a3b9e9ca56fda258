"""Tables of ``distil evaluate``, ``distil compare`` and ``distil export``."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.coco.poses import ScoreRule
from pipeline.evaluation.comparison import Arm, ArmDifference
from pipeline.evaluation.report import EvaluationReport, defined
from pipeline.export.model_card import TITLES, FiguresOfFile
from pipeline.wording import counted
from stages.commands.terminal import figure_table

DIGITS_OF_A_DIGEST = 12
_WIDTH_OF_A_KEYPOINT = 18  # beside its name: two numbers and the space around them

Facts = Mapping[str, str | int | float | bool | None]


def print_report(console: Console, report: EvaluationReport, notes: Sequence[str] = ()) -> None:
    """Print the figures of an evaluation and everything that a comparison of them needs.

    notes: what the reader must know, a sentence each.
    """
    console.print(_headline(report))
    console.print(_coco_figures(report))
    console.print(_keypoints(report, console.width))
    console.print(_settings(report))
    _print_notes(console, notes)


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(Text(f"note: {note}", style="yellow"))


def _headline(report: EvaluationReport) -> Table:
    """The three columns of every comparison."""
    table = Table(box=box.ROUNDED, header_style="bold")
    for title in ("AP, own score", "AP, score 1", "mean OKS", "people", "poses", "images"):
        table.add_column(title, justify="right")
    row = report.row
    table.add_row(
        *(
            Text(_figure(value), style="bold green")
            for value in (row.own_score.AP, row.score_one.AP, row.mean_oks)
        ),
        str(report.num_people),
        str(report.num_poses),
        str(report.num_images),
    )
    return table


def _coco_figures(report: EvaluationReport) -> Table:
    own, one = report.row.own_score.as_dict(), report.row.score_one.as_dict()
    table = figure_table(own, Column("score", no_wrap=True), no_wrap=True)
    table.add_row("own", *map(_figure, own.values()))
    table.add_row("1", *map(_figure, one.values()))
    return table


def _keypoints(report: EvaluationReport, width: int) -> Table:
    """PCK and OKS of each keypoint, in as many column groups as the terminal has room for."""
    names = report.keypoint_names
    measured = report.row.localisation
    rows = list(zip(names, measured.pck, measured.keypoint_oks, strict=True))
    rows.append(("mean", measured.mean_pck, np.float64(np.nan)))
    longest = max(len(name) for name, _, _ in rows)
    num_groups = max(1, min(3, width // (longest + _WIDTH_OF_A_KEYPOINT)))
    height = -(-len(rows) // num_groups)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for _ in range(num_groups):
        table.add_column("keypoint")
        table.add_column("PCK@0.2", justify="right")
        table.add_column("OKS", justify="right", min_width=5)
    for first in range(height):
        cells: list[str] = []
        for name, pck, oks in rows[first::height]:
            cells += [name, _figure(pck), _figure(oks)]
        table.add_row(*cells)
    return table


def _settings(report: EvaluationReport) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, describe in _LINES.items():
        text = describe(report.evaluated)
        if text:
            table.add_row(label, Text(text))
    table.add_row("score", Text(_score(report.score_rule, report.evaluated)))
    return table


def _evaluated(facts: Facts) -> str:
    source = str(facts.get("source", ""))
    path = next(
        (facts[n] for n in ("weights", "teacher", "store", "predictions") if n in facts), ""
    )
    details = [str(facts[n]) for n in ("architecture",) if n in facts]
    details = [detail for detail in details if not str(path).endswith(detail)]  # an ONNX file's
    if "epoch" in facts:
        details.append(f"epoch {facts['epoch']}")
    return f"{source} {path}" + (f" ({', '.join(details)})" if details else "")


def _boxes(facts: Facts) -> str:
    parts = []
    if facts.get("boxes") == "detections":
        parts.append(f"detections {facts['detections']}, not clipped")
    elif "boxes" in facts:
        clipped = "clipped to the image" if facts.get("clip_boxes") else "as annotated"
        parts.append(f"ground truth, {clipped}")
    if facts.get("padding") is not None:
        parts.append(f"padding {facts['padding']:g}")
    if "input_size" in facts:
        parts.append(f"crops {facts['input_size']}")
    return ", ".join(parts)


def _flips(facts: Facts) -> str:
    if "flip_test" not in facts:
        return ""
    shift = facts.get("flip_shift")
    moved = "" if shift is None else f", mirrored maps shifted by {counted(int(shift), 'cell')}"
    return f"on{moved}" if facts["flip_test"] else "off"


def _decoding(facts: Facts) -> str:
    if "decoding" not in facts:
        return ""
    frame = facts.get("heatmap_frame")
    return f"{facts['decoding']}" + (f", heatmap frame {frame}" if frame else "")


def _store(facts: Facts) -> str:
    fingerprint, content = facts.get("store_fingerprint"), facts.get("store_content")
    if not fingerprint:
        return ""
    trained = "trained from " if facts.get("source") == "student" else ""
    return f"{trained}fingerprint {_short(fingerprint)}" + (
        f", content {_short(content)}" if content else ""
    )


def _nms(facts: Facts) -> str:
    if facts.get("source") == "predictions":
        return "none: results are taken as they are"
    if "nms_oks" not in facts:
        return "none: one pose per person"
    return f"OKS {facts['nms_oks']}, at most {facts['nms_max_poses_per_image']} poses per image"


_LINES: dict[str, Callable[[Facts], str]] = {
    "evaluated": _evaluated,
    "truth": lambda facts: str(facts.get("annotations", "the store's own people")),
    "store": _store,
    "teacher": lambda facts: (
        f"sha256 {_short(facts['teacher_sha256'])}" if "teacher_sha256" in facts else ""
    ),
    "boxes": _boxes,
    "flip test": _flips,
    "decoding": _decoding,
    "NMS": _nms,
}


def _score(rule: ScoreRule | None, facts: Facts) -> str:
    if rule is None:
        return "as in the results"
    box_score = "box score x " if facts.get("boxes") == "detections" else ""
    if rule.kind == "one":
        return f"{box_score}1 by rule: the network's keypoint scores were never trained"
    scored = rule.scored_keypoints
    which = "keypoint" if scored is None else f"{len(scored)} trained keypoint"
    above = "s" if rule.threshold is None else f"s above {rule.threshold:g}"
    return f"{box_score}mean of the {which} score{above}"


def _short(digest: object) -> str:
    return str(digest)[:DIGITS_OF_A_DIGEST]


def _figure(value: float | np.float64 | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def print_comparison(
    console: Console,
    arms: Sequence[Arm],
    differences: Sequence[ArmDifference],
    num_people: int,
    notes: Sequence[str] = (),
) -> None:
    """Print the arms, and the paired difference of their mean OKS whatever its sign.

    PCK is shown where there is no OKS. notes: what the reader must know, a sentence each.
    """
    pck = ("PCK@0.2",) if all(np.isnan(arm.figures.mean_oks) for arm in arms) else ()
    table = figure_table(("AP", "AP, score 1", "mean OKS", *pck))
    names = dict.fromkeys(arm.name for arm in arms)
    for name in names:
        of_name = [arm for arm in arms if arm.name == name]
        table.add_row(*_arm_row(name, of_name, has_pck=bool(pck)))
    console.print(table)
    _print_costs(console, [next(arm for arm in arms if arm.name == name) for name in names], arms)
    console.print("AP: ranked by each arm's own score, under the flip test.", style="dim")
    for found in differences:
        difference = found.difference
        console.print(
            f"mean OKS, {found.one} minus {found.other}: {difference.mean:+.4f} (95 % interval "
            f"over {counted(num_people, 'person')} {difference.low:+.4f} to "
            f"{difference.high:+.4f}): {_verdict(found)}"
        )
    _print_notes(console, notes)


def print_export(
    console: Console, rows: Sequence[FiguresOfFile], notes: Sequence[str] = ()
) -> None:
    """Print size, time and accuracy of a student's files. notes: as of ``print_comparison``."""
    table = figure_table(TITLES[1:])
    for row in rows:
        table.add_row(*row.as_cells())
    console.print(table)
    console.print(
        "ms: shortest in onnxruntime, one core, the files in turns, without the flip test; "
        "difference: largest of an output from torch.",
        style="dim",
    )
    _print_notes(console, notes)


def _arm_row(name: str, arms: Sequence[Arm], *, has_pck: bool) -> list[str]:
    figures = [arm.figures for arm in arms]
    own = _mean_and_spread([found.own_score.AP for found in figures])
    one = _mean_and_spread([found.score_one.AP for found in figures])
    accuracy = [_mean_and_spread([defined(found.mean_oks) for found in figures])]
    if has_pck:
        accuracy.append(_mean_and_spread([defined(found.mean_pck) for found in figures]))
    return [name, own, one, *accuracy]


def _print_costs(console: Console, networks: Sequence[Arm], arms: Sequence[Arm]) -> None:
    """Print students and teacher side by side: what each costs, and what it reaches.

    networks: one arm of each name.
    """
    measured = [arm for arm in networks if arm.cost is not None]
    if not measured:
        return
    titles = ("M par", "M add", "ms 1", "ms 64", "MB", *_COCO)
    table = figure_table(titles, Column("", no_wrap=True), no_wrap=True)
    minima, runtimes = [], set()
    for arm in measured:
        cost = arm.cost
        assert cost is not None
        own = [other.figures.own_score.as_dict() for other in arms if other.name == arm.name]
        table.add_row(
            arm.name,
            f"{cost.num_parameters / 1e6:.2f}",
            f"{cost.num_multiply_adds / 1e6:.0f}",
            f"{cost.batch_1.median:.1f}",
            f"{cost.batch_64.median:.0f}",
            "-" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e6:.0f}",
            *(_mean([figures[name] for figures in own]) for name in _COCO),
        )
        minima.append(f"{arm.name} {cost.batch_1.minimum:.1f}, {cost.batch_64.minimum:.0f}")
        runtimes.add(cost.runtime)
    console.print(table)
    console.print(
        "M par, M add: millions of parameters and of multiply-adds. ms 1, ms 64: median time of a "
        f"batch of 1 and of 64 in {' and '.join(sorted(runtimes))} on one core, the networks in "
        "turns, without flip test and decoding. MB: peak memory that a batch of 64 adds. Minimum "
        f"times: {'; '.join(minima)}.",
        style="dim",
    )


_COCO = ("AP50", "AP75", "APM", "APL", "AR")


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f}" if known else "-"


def _mean_and_spread(values: Sequence[float | None]) -> str:
    """Return the mean, with the standard deviation where there are several seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ±{np.std(known, ddof=1):.3f}" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"


def _verdict(found: ArmDifference) -> str:
    if found.difference.low > 0:
        return f"{found.one} is better"
    if found.difference.high < 0:
        return f"{found.other} is better"
    return "no difference is shown"
