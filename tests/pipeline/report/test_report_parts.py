"""What a page tells of runs: names, settings, curves, the people that it shows."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import StageConfig
from pipeline.evaluation.average_precision import MatchedPoses
from pipeline.evaluation.kept_evaluations import Evaluation
from pipeline.evaluation.localisation import paired_bootstrap
from pipeline.report.curves import loss_charts, validation_charts
from pipeline.report.figures import figure_rows
from pipeline.report.people import choose_people
from pipeline.report.run_facts import RunFacts, names_of
from pipeline.report.settings import setting_rows
from pipeline.runs.run_folder import RunFolder
from tests.support.tiny_training import INFO


def test_a_run_has_the_shortest_name_that_tells_it_apart() -> None:
    assert names_of([Path("a/runs/x"), Path("a/runs/y")]) == ["x", "y"]
    assert names_of([Path("/a/x/last"), Path("/b/x/last")]) == ["a/x/last", "b/x/last"]


class Settings(StageConfig):
    seed: int = 0
    rate: float = 0.1
    name: str = "adam"


def test_settings_that_differ_among_runs_come_first_then_those_not_at_their_default() -> None:
    runs = [Settings(seed=1, name="sgd"), Settings(seed=2, name="sgd")]
    rows = setting_rows(runs, [Settings()] * 2)
    assert [row.name for row in rows] == ["seed", "name", "rate"]
    assert rows[0].values == ("1", "2")
    assert [row.differs for row in rows] == [True, False, False]
    assert [row.default for row in rows] == ["0", "adam", None]


def run_with(tmp_path: Path, name: str, lines: list[dict[str, object]]) -> RunFacts:
    folder = RunFolder(tmp_path)
    return RunFacts(name, folder, Settings(), 10, INFO, "", 0, lines, (), 0.0)


def epoch(number: int, **figures: object) -> dict[str, object]:
    return {"event": "epoch", "epoch": number, "step": 5 * number, **figures}


def test_every_term_of_every_run_has_a_line_and_the_mean_pose_a_level(tmp_path: Path) -> None:
    one = run_with(
        tmp_path,
        "one",
        [
            epoch(1, person_views=50, learning_rate=0.1, loss=3.0, regression=1.0),
            {"event": "validation", "epoch": 1, "step": 5, "AP": None, "mean_oks": 0.4}
            | {"mean_pose_oks": 0.2},
            epoch(2, person_views=100, learning_rate=0.1, loss=2.0, regression=0.5)
            | {"new_corrupt_views": [[1, 2]]},
        ],
    )
    other = run_with(tmp_path, "other", [epoch(1, loss=4.0, confidence=0.1)])
    assert one.person_views == 100
    assert other.person_views == 50, "of a step: the batch size, where the line does not tell"
    charts = loss_charts([one, other])
    found = {chart.title: [line.name for line in chart.lines] for chart in charts}
    assert found == {
        "loss": ["one", "other"],
        "regression": ["one"],
        "confidence": ["other"],
        "learning rate": ["one"],
    }
    (chart,) = validation_charts([one, other])
    assert [(line.name, line.run) for line in chart.lines] == [("mean pose", None), ("one", 0)]
    assert len({y for _, y in chart.lines[0].points}) == 1
    assert validation_charts([other]) == []


def evaluation(oks: np.ndarray) -> Evaluation:
    ones = np.ones((10, len(oks)), bool)
    matched = MatchedPoses(np.arange(len(oks)), ones & (oks > 0.5), ~ones, np.ones(len(oks), int))
    ap = float(matched.average_precision(np.ones((1, len(oks)), int))[0])
    empty = np.zeros(0)
    return Evaluation(
        {"AP": ap, "AR": 0.5}, {"AP": 0.5}, float(oks.mean()), oks, empty, empty, matched,
        "learned", empty, empty,
    )  # fmt: skip


def test_differences_are_paired_and_minus_the_first_run() -> None:
    random = np.random.default_rng(1)
    first = random.uniform(0.2, 0.8, 100)
    better = first + random.normal(0.02, 0.05, 100)
    same = random.permutation(first)
    worse = 0.9 * first
    found_oks = [evaluation(oks) for oks in (first, better, same, worse)]
    rows = figure_rows(["a", "b", "c", "d"], found_oks, np.arange(100), 0)
    assert rows[0].oks_difference is rows[0].ap_difference is None
    found, expected = rows[1].oks_difference, paired_bootstrap(better, first, seed=5)
    assert found is not None
    width = expected.high - expected.low
    assert found.mean == pytest.approx(expected.mean)
    assert found.low == pytest.approx(expected.low, abs=0.06 * width)
    assert found.high == pytest.approx(expected.high, abs=0.06 * width)
    error = 1.96 * first.std() / np.sqrt(100)
    assert rows[0].mean_oks.low == pytest.approx(first.mean() - error, abs=0.1 * error)
    assert rows[0].mean_oks.high == pytest.approx(first.mean() + error, abs=0.1 * error)
    assert rows[0].ap is not None
    assert rows[0].ap.low < rows[0].ap.value < rows[0].ap.high
    assert rows[1].in_words("a").endswith(": b is better.")
    assert rows[2].in_words("a").endswith(": no difference is shown.")
    assert rows[1].in_words("a").startswith(f"Mean OKS, b minus a: {found.mean:+.4f} (95 % inter")
    assert rows[3].in_words("a").endswith(": a is better.")


def test_the_people_shown_are_the_worst_the_median_and_those_that_differ_most() -> None:
    first = np.array([0.9, 0.1, np.nan, 0.5, 0.3, 0.7])
    other = np.array([0.9, 0.1, np.nan, 0.6, 0.9, 0.4])
    worst, median, differing = choose_people([first, other], "a", 2)
    assert worst.rows.tolist() == [1, 4]
    assert median.rows.tolist() == [4, 3]
    assert differing.rows.tolist() == [4, 5]
    assert [group.title for group in choose_people([first], "a", 9)] == [
        "The lowest OKS of a",
        "Around the median OKS of a",
    ]
    assert sorted(choose_people([first], "a", 9)[1].rows.tolist()) == [0, 1, 3, 4, 5]


def test_a_kept_evaluation_is_read_as_it_was_written() -> None:
    oks = np.array([0.25, np.nan, 1.0])
    found = Evaluation(
        {"AP": 0.5, "AR": None}, {"AP": 0.25}, 0.625, oks, np.array([0.5, np.nan]),
        np.array([np.nan, 1.0]),
        MatchedPoses(np.array([0, 1]), np.eye(10, 2, dtype=bool), ~np.eye(10, 2, dtype=bool),
                     np.array([2, 1])),
        "one", np.array([1.0, 1.0, 1.0]), np.arange(12.0).reshape(3, 2, 2) + 0.25,
    )  # fmt: skip
    again = Evaluation.from_json(found.to_json())
    for name in ("oks", "keypoint_oks", "pck", "scores", "keypoints"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    np.testing.assert_array_equal(again.matched.is_match, found.matched.is_match)
    assert again.mean_pck == 1.0
    assert again.score_kind == "one"
    assert json.loads(found.to_json())["own_score"] == {"AP": 0.5, "AR": None}
