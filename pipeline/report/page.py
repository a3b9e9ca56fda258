"""The page of a report: all that it tells, and its HTML by the template ``report.html.jinja``."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.evaluation.intervals import NUM_SAMPLES
from pipeline.pictures.poses import SIDES
from pipeline.report import charts
from pipeline.report.figures import FigureRow
from pipeline.report.people import TILE_HW, ShownPerson
from pipeline.report.run_facts import RunFacts
from pipeline.report.settings import SettingRow
from pipeline.wording import counted

DIGITS_OF_A_DIGEST = 12
_STRONGEST_TINT = 0.42


@dataclass(frozen=True)
class Page:
    """All that a report tells; the template lays it out."""

    runs: Sequence[RunFacts]
    figures: Sequence[FigureRow]
    """In the order of the runs."""
    annotations: Path
    annotations_sha256: str
    num_people: int
    num_images: int
    keypoint_names: Sequence[str]
    num_labelled: Sequence[int]
    """Number of people with each keypoint labelled."""
    loss_charts: Sequence[charts.LineChart]
    validation_charts: Sequence[charts.LineChart]
    reliability: Sequence[charts.ReliabilityChart]
    unscored: Sequence[str]
    """Names of the runs whose scores are 1 by rule."""
    people: Sequence[tuple[str, Sequence[ShownPerson]]]
    """Title of a group, and its people."""
    notes_on_people: Sequence[str]
    setting_rows: Sequence[SettingRow]
    store: Sequence[tuple[str, str]]
    """Names and values of the teacher store's summary; empty: no store is given."""
    made: Mapping[str, Any]
    """Provenance of the report itself."""
    num_samples: int = NUM_SAMPLES
    side_colours: Sequence[tuple[int, int, int]] = tuple(colour for _, colour in SIDES)

    @property
    def title(self) -> str:
        if len(self.runs) == 1:
            return f"Report of {self.runs[0].name}"
        return f"Report of {counted(len(self.runs), 'run')}"

    @property
    def people_in_words(self) -> str:
        return f"{counted(self.num_people, 'person').capitalize()} of {self.annotations.name}."

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchors and titles, in the order of the page."""
        found = [
            *(("figures", "Figures"), ("curves", "Curves"), ("keypoints", "Keypoints")),
            *(("scores", "Scores"), ("people", "People"), ("store", "Store")),
            *(("settings", "Settings"), ("made", "How it was made")),
        ]
        return [(anchor, title) for anchor, title in found if self.store or anchor != "store"]

    @property
    def best_oks(self) -> FigureRow:
        return max(self.figures, key=lambda row: row.mean_oks.value)

    @property
    def best_ap(self) -> FigureRow | None:
        known = [row for row in self.figures if row.ap is not None]
        return max(known, key=lambda row: row.evaluation.own_score["AP"] or 0.0, default=None)

    @property
    def person_views(self) -> int:
        return sum(run.person_views for run in self.runs)

    @property
    def hours(self) -> float:
        return sum(run.hours for run in self.runs)

    @property
    def oks_range(self) -> tuple[float, float]:
        """Ends of the axis of all intervals of mean OKS."""
        found = [row.mean_oks for row in self.figures]
        return _with_room([end for row in found for end in (row.low, row.high)])

    @property
    def difference_range(self) -> tuple[float, float]:
        """Ends of the axis of all intervals of differences, 0 between them."""
        found = [row.oks_difference for row in self.figures if row.oks_difference is not None]
        return _with_room([0.0, *(end for row in found for end in (row.low, row.high))])

    @property
    def settings(self) -> list[tuple[str, list[SettingRow], bool]]:
        """Groups of settings: title, rows, and whether they are open at first."""
        rows = self.setting_rows
        changed = [row for row in rows if row.default is not None and not row.differs]
        return [
            ("Settings that differ among the runs", [row for row in rows if row.differs], True),
            ("Settings that differ from the defaults", changed, True),
            (
                "Settings at their defaults",
                [row for row in rows if row.default is None and not row.differs],
                False,
            ),
        ]

    def facts_of_run(self, run: RunFacts) -> list[tuple[str, str]]:
        """Return names and values of what a run is, and what identifies it."""
        info = run.info
        height, width = info.input_size_hw
        facts = [
            ("run folder", str(run.folder.root)),
            ("architecture", f"{info.architecture}, {run.num_parameters:,} parameters"),
            ("crops", f"{height}x{width}"),
            ("best weights", f"epoch {info.epoch}, step {info.step:,}"),
            ("sha256 of the weights", run.weights_sha256),
            ("trained on", f"{run.person_views:,} person-views in {run.hours:.2f} hours"),
            ("seed", str(info.seed)),
        ]
        if info.store_fingerprint is not None:
            facts.append(("store fingerprint", info.store_fingerprint))
        if info.store_content is not None:
            facts.append(("store content", info.store_content))
        return facts

    @property
    def facts_of_report(self) -> list[tuple[str, str]]:
        """Names and values of what the figures were measured on, and by which program."""
        packages = ", ".join(f"{name} {number}" for name, number in self.made["packages"].items())
        return [
            ("annotations", str(self.annotations)),
            ("sha256 of the annotations", self.annotations_sha256),
            ("machine", f"{self.made['machine']}, Python {self.made['python']}"),
            ("packages", packages),
        ]


def render(page: Page) -> str:
    """Return the page as HTML that loads nothing from anywhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "breakable": _breakable,
        "command": lambda words: shlex.join(["distil", *words[1:]]),
        "compact": _compact,
        "date": lambda text: text.replace("T", " ").removesuffix("Z") + " UTC",
        "figure": _figure,
        "grouped": lambda number: f"{number:,}",
        "share": lambda part, whole: f"{100 * part / whole:.2f}",
        "signed": lambda value, digits: f"{value:+.{digits}f}",
        "significant": lambda value: f"{value:.4g}",
        "tint": _tint,
    }
    template = environment.get_template("report.html.jinja")
    return template.render(page=page, charts=charts, tile_hw=TILE_HW)


def _breakable(text: str) -> Markup:
    """Return a name or a path that may be broken after dots, slashes and underscores."""
    return Markup(re.sub(r"([._/])", r"\1<wbr>", str(escape(text))))


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _tint(value: float) -> str:
    """Return the background of a cell: the stronger, the nearer a figure is to 1."""
    strength = 0.0 if math.isnan(value) else _STRONGEST_TINT * value**1.5
    return f"background:rgba(0,114,178,{strength:.3f})"


def _compact(number: int) -> str:
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {letter}"
    return str(number)


def _with_room(values: Sequence[float]) -> tuple[float, float]:
    room = 0.05 * (max(values) - min(values)) or 0.01
    return min(values) - room, max(values) + room
