"""The charts of losses and validations of runs, a line for each run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.report.charts import LineChart, Series, line_chart
from pipeline.report.run_facts import RunFacts

VALIDATIONS = {
    "AP": "AP, own score",
    "AP_with_score_one": "AP, score 1",
    "AR": "AR",
    "mean_oks": "mean OKS",
    "mean_pck": "mean PCK@0.2",
}
"""Figures of a validation that are drawn -> their titles."""
_MEAN_POSE = {"mean_oks": "mean_pose_oks", "mean_pck": "mean_pose_pck"}
"""Figure -> that of the mean pose, which a student must beat."""
_NO_FIGURES = {"event", "epoch", "step", "person_views"}
_X_NAME = "person-views"


def loss_charts(runs: Sequence[RunFacts]) -> list[LineChart]:
    """Return a chart for the loss, each of its terms and the learning rate, where a run has it."""
    epochs = [[line for line in run.metrics if line["event"] == "epoch"] for run in runs]
    found = (name for lines in epochs for line in lines for name in line if _is_figure(line, name))
    names = list(dict.fromkeys(found))
    ordered = ["loss", *(name for name in names if name not in ("loss", "learning_rate"))]
    charts = []
    for name in (*ordered, "learning_rate"):
        series = list(_series(runs, "epoch", name))
        if series:
            charts.append(line_chart(name.replace("_", " "), series, _X_NAME))
    return charts


def validation_charts(runs: Sequence[RunFacts]) -> list[LineChart]:
    """Return a chart for each figure of validation, where a run has one."""
    charts = []
    for name, title in VALIDATIONS.items():
        series = list(_series(runs, "validation", name))
        if series:
            of_mean_pose = list(_mean_pose(runs, _MEAN_POSE.get(name)))
            charts.append(line_chart(title, [*of_mean_pose, *series], _X_NAME))
    return charts


def _series(runs: Sequence[RunFacts], event: str, name: str) -> Iterator[Series]:
    for place, run in enumerate(runs):
        lines = [line for line in run.metrics if line["event"] == event]
        points = [
            (float(run.views_of(line)), float(line[name]))
            for line in lines
            if line.get(name) is not None
        ]
        if points:
            yield Series(run.name, points, place)


def _mean_pose(runs: Sequence[RunFacts], name: str | None) -> Iterator[Series]:
    """Yield the figure of the mean pose as a level line, once for each different figure."""
    lines = [(run, line) for run in runs for line in run.metrics]
    levels = {round(line[name], 3) for _, line in lines if name and line.get(name) is not None}
    if not levels:
        return
    end = float(max(run.views_of(line) for run, line in lines))
    for level in sorted(levels):
        yield Series("mean pose", [(0.0, level), (end, level)], None)


def _is_figure(line: Mapping[str, Any], name: str) -> bool:
    return name not in _NO_FIGURES and isinstance(line[name], int | float)
