"""The table of a sweep: a row for each arm with paired intervals, and a row for each run."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.intervals import Draws
from pipeline.evaluation.kept_evaluations import Evaluation
from pipeline.evaluation.localisation import Difference

DIGITS_OF_A_DIGEST = 12


@dataclass(frozen=True)
class RunRow:
    """One finished run."""

    arm: str
    seed: int
    run: str
    """Name of the run folder."""
    evaluation: Evaluation
    person_views: int
    hours: float
    bytes_per_view: float | None
    """Bytes of the store that the arm's loss terms read of a view; None: it learns from none."""
    store_content: str | None
    """Digest of the teacher store."""
    curve: Sequence[tuple[int, float]]
    """(person-views, mean OKS) of each validation."""


@dataclass(frozen=True)
class ArmRow:
    """One arm: means over its runs, and what it differs by from its baseline."""

    arm: str
    baseline: str
    seeds: tuple[int, ...]
    ap_own_score: float | None
    ap_score_one: float | None
    mean_oks: float
    oks_difference: Difference | None
    """Mean OKS minus the baseline's; None: of the baseline itself, or without a common seed."""
    ap_difference: Difference | None
    """AP by own score minus the baseline's."""
    person_views: float
    hours: float
    """Mean of its runs."""
    bytes_per_view: float | None


@dataclass(frozen=True)
class SweepTable:
    """All that is known of a sweep."""

    question: str
    notes: tuple[str, ...]
    arms: tuple[ArmRow, ...]
    runs: tuple[RunRow, ...]


def build_table(
    question: str,
    baselines: Mapping[str, str],
    runs: Sequence[RunRow],
    image_of_person: NDArray[np.int64],
    notes: Sequence[str] = (),
    *,
    seed: int = 0,
    samples: dict[str, "Samples"] | None = None,
) -> SweepTable:
    """Put the finished runs of a sweep into a table, arms in the order of ``baselines``.

    baselines: name of each arm -> name of the arm that it is compared with.
    image_of_person: (N,), index of the image of every person.
    seed: seed of the intervals.
    samples: those of runs that an earlier table of this sweep drew, by run; completed here.
    """
    samples = {} if samples is None else samples
    for run in runs:
        if run.run not in samples:
            samples[run.run] = _samples_of(run.evaluation, image_of_person, seed)
    rows = []
    for arm, baseline in baselines.items():
        own = [run for run in runs if run.arm == arm]
        if own:
            others = [] if arm == baseline else [run for run in runs if run.arm == baseline]
            rows.append(_arm_row(arm, baseline, own, others, samples))
    return SweepTable(question, tuple(notes), tuple(rows), tuple(runs))


class Samples(NamedTuple):
    """The figures of a run in every bootstrap sample."""

    draws: Draws
    oks: NDArray[np.float64]  # (B,)
    ap: NDArray[np.float64]  # (B,), under its own score


def _samples_of(found: Evaluation, image_of_person: NDArray[np.int64], seed: int) -> Samples:
    draws = Draws.of_images(len(found.matched.num_people), seed)
    oks = draws.mean_oks(found.oks, image_of_person)
    return Samples(draws, oks, draws.average_precision(found.matched))


def _arm_row(
    arm: str,
    baseline: str,
    runs: Sequence[RunRow],
    others: Sequence[RunRow],
    samples: Mapping[str, Samples],
) -> ArmRow:
    of_seed = {run.seed: run for run in others}
    pairs = [(run, of_seed[run.seed]) for run in runs if run.seed in of_seed]
    oks = ap = None
    if pairs:
        both = [(samples[one.run], samples[other.run]) for one, other in pairs]
        draws = both[0][0].draws
        oks = draws.difference(
            [(one.oks, other.oks) for one, other in both],
            [(one.evaluation.mean_oks, other.evaluation.mean_oks) for one, other in pairs],
        )
        figures = [(_own_ap(one), _own_ap(other)) for one, other in pairs]
        if not np.isnan(figures).any():
            ap = draws.difference([(one.ap, other.ap) for one, other in both], figures)
    return ArmRow(
        arm=arm,
        baseline=baseline,
        seeds=tuple(run.seed for run in runs),
        ap_own_score=_mean([run.evaluation.own_score["AP"] for run in runs]),
        ap_score_one=_mean([run.evaluation.score_one["AP"] for run in runs]),
        mean_oks=float(np.mean([run.evaluation.mean_oks for run in runs])),
        oks_difference=oks,
        ap_difference=ap,
        person_views=float(np.mean([run.person_views for run in runs])),
        hours=float(np.mean([run.hours for run in runs])),
        bytes_per_view=runs[0].bytes_per_view,
    )


def as_markdown(table: SweepTable) -> str:
    """Return the table as a Markdown page: the question, arms, notes, runs."""
    arms = _markdown_table(ARM_TITLES, [arm_cells(row) for row in table.arms])
    runs = _markdown_table(
        ("run", "AP own score", "AP score 1", "mean OKS", "person-views", "hours", "store"),
        [_run_cells(row) for row in table.runs],
    )
    notes = "".join(f"- {note}\n" for note in table.notes)
    return f"# {table.question}\n\n{arms}\n{notes}\n## Runs\n\n{runs}"


ARM_TITLES = (
    *("arm", "seeds", "AP own score", "AP score 1", "mean OKS"),
    *("mean OKS against the baseline", "AP own score against the baseline"),
    *("person-views", "hours", "bytes a view"),
)


def arm_cells(row: ArmRow) -> list[str]:
    """Return the cells of an arm below ``ARM_TITLES``."""
    is_baseline = row.arm == row.baseline
    return [
        row.arm,
        str(len(row.seeds)),
        _figure(row.ap_own_score, 3),
        _figure(row.ap_score_one, 3),
        _figure(row.mean_oks, 4),
        "baseline" if is_baseline else in_words(row.oks_difference),
        "baseline" if is_baseline else in_words(row.ap_difference),
        f"{row.person_views:,.0f}",
        f"{row.hours:.2f}",
        _figure(row.bytes_per_view, 0),
    ]


def in_words(difference: Difference | None) -> str:
    """Return a difference with its interval."""
    if difference is None:
        return "-"
    return f"{difference.mean:+.4f} ({difference.low:+.4f} .. {difference.high:+.4f})"


def as_csv(table: SweepTable) -> str:
    """Return a line for each arm as CSV, at full precision; empty where there is no figure."""
    lines: list[dict[str, object]] = []
    for row in table.arms:
        line = asdict(row)
        line["seeds"] = " ".join(map(str, row.seeds))
        for name in ("oks_difference", "ap_difference"):
            found = line.pop(name) or dict.fromkeys(("mean", "low", "high"))
            line |= {f"{name}_{key}": value for key, value in found.items()}
        lines.append(line)
    return _as_csv(lines)


def runs_as_csv(table: SweepTable) -> str:
    """Return a line for each run as CSV, at full precision."""
    return _as_csv([_run_facts(row) for row in table.runs])


def as_json(table: SweepTable) -> str:
    """Return all figures as JSON, the curves of validation too."""
    content = {
        "question": table.question,
        "notes": table.notes,
        "arms": [asdict(row) for row in table.arms],
        "runs": [{**_run_facts(row), "validation": list(row.curve)} for row in table.runs],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _run_facts(row: RunRow) -> dict[str, object]:
    own = {f"{name}_own_score": value for name, value in row.evaluation.own_score.items()}
    return {
        "arm": row.arm,
        "seed": row.seed,
        "run": row.run,
        **own,
        "AP_score_one": row.evaluation.score_one["AP"],
        "mean_oks": row.evaluation.mean_oks,
        "person_views": row.person_views,
        "hours": row.hours,
        "bytes_per_view": row.bytes_per_view,
        "store_content": row.store_content,
    }


def _run_cells(row: RunRow) -> list[str]:
    found = row.evaluation
    return [
        row.run,
        _figure(found.own_score["AP"], 3),
        _figure(found.score_one["AP"], 3),
        _figure(found.mean_oks, 4),
        f"{row.person_views:,}",
        f"{row.hours:.2f}",
        (row.store_content or "-")[:DIGITS_OF_A_DIGEST],
    ]


def _markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def _as_csv(lines: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _own_ap(run: RunRow) -> float:
    found = run.evaluation.own_score["AP"]
    return float("nan") if found is None else found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
