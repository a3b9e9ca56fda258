"""Places in charts are those of the values; ticks are round."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.reliability import measure_reliability
from pipeline.report import charts
from pipeline.report.charts import Series, line_chart, reliability_chart, ticks

# The axes of the picture, in its units: 380 wide and 236 high.
LEFT, RIGHT, TOP, BOTTOM = 50, 368, 10, 198


def place(value: float, low: float, high: float) -> float:
    """The height of a value between the ends of an axis that leaves 6 % free on both sides."""
    room = 0.06 * (high - low)
    return BOTTOM - (BOTTOM - TOP) * (value - low + room) / (high - low + 2 * room)


def test_points_stand_at_their_values_and_the_horizontal_axis_begins_at_zero() -> None:
    one = Series("one", [(100, 0.2), (300, 0.6)], 0)
    other = Series("other", [(400, 0.4)], 1)
    chart = line_chart("OKS", [one, other], "steps")
    expected = [(100, 0.2), (300, 0.6), (400, 0.4)]
    found = [point for line in chart.lines for point in line.points]
    for (x, y), (value_x, value_y) in zip(found, expected, strict=True):
        assert x == pytest.approx(LEFT + (RIGHT - LEFT) * value_x / 400, abs=0.01)
        assert y == pytest.approx(place(value_y, 0.2, 0.6), abs=0.01)
    assert [tick.label for tick in chart.x_ticks] == ["0", "100", "200", "300", "400"]
    assert [tick.label for tick in chart.y_ticks] == ["0.2", "0.3", "0.4", "0.5", "0.6"]
    assert [tick.place for tick in chart.y_ticks][::4] == [found[0][1], found[1][1]]
    assert chart.x_name == "steps"
    assert [line.last for line in chart.lines] == [0.6, 0.4]


@pytest.mark.parametrize(("ratio", "is_log"), [(29, False), (30, True)])
def test_positive_values_over_a_factor_of_thirty_stand_on_a_logarithmic_axis(
    ratio: float, is_log: bool
) -> None:
    chart = line_chart("loss", [Series("a", [(0, 1), (1, ratio**0.5), (2, ratio)], 0)], "steps")
    (_, low), (_, middle), (_, high) = chart.lines[0].points
    assert (middle == pytest.approx((low + high) / 2, abs=0.02)) is is_log
    assert [tick.label for tick in chart.y_ticks if is_log] == (
        ["1", "2", "5", "10", "20"] if is_log else []
    )


def test_values_that_are_negative_or_all_the_same_have_an_axis() -> None:
    near = line_chart("near", [Series("a", [(0, 0.25), (1, 0.2500001)], 0)], "steps")
    assert max(len(tick.label) for tick in near.y_ticks) <= 7
    chart = line_chart("nll", [Series("a", [(0, -3.0), (1, 500.0)], 0)], "steps")
    assert {"0", "200", "400"} <= {tick.label for tick in chart.y_ticks}
    for value in (0.0, 0.25, -2.0):
        level = line_chart("flat", [Series("a", [(5, value)], 0)], "steps")
        assert TOP < level.lines[0].points[0][1] < BOTTOM


@pytest.mark.parametrize(
    ("views", "words", "last"),
    [(1999, "", "1500"), (2000, ", thousands", "2.0"), (2_500_000, ", millions", "2.5")],
)
def test_the_horizontal_axis_counts_in_thousands_and_millions(
    views: int, words: str, last: str
) -> None:
    chart = line_chart("loss", [Series("a", [(views, 1.0)], 0)], "person-views")
    assert chart.x_name == f"person-views{words}"
    assert chart.x_ticks[-1].label == last


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_within(low: float, width: float) -> None:
    width = max(width, 0.01 * abs(low))
    high = low + width
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-6 * width <= value <= high + 1e-6 * width for value in found)
    steps = np.diff(found)
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-6)
    assert min(abs(mantissa - factor) for factor in (1, 2, 5)) < 1e-3
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)


def test_scores_that_are_the_oks_have_no_error_and_others_their_distance() -> None:
    generator = np.random.default_rng(0)
    exact = generator.uniform(size=500)
    assert measure_reliability(exact, exact).error == pytest.approx(0, abs=1e-12)
    # Two poses in the bin from 0.2 to 0.3, one in the last bin, which ends with 1.
    found = measure_reliability(np.array([0.21, 0.29, 1.0, 0.5]), np.array([0.5, 0.7, 0.4, np.nan]))
    assert found.counts.tolist() == [0, 0, 2, 0, 0, 0, 0, 0, 0, 1]
    assert found.scores[2] == pytest.approx(0.25)
    assert found.oks[2] == pytest.approx(0.6)
    assert found.error == pytest.approx((2 * 0.35 + 0.6) / 3)
    assert np.isnan(found.oks[0])
    beyond = measure_reliability(np.array([-0.5, 1.5]), np.array([0.0, 1.0]))
    assert beyond.counts.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_bars_of_a_reliability_diagram_are_as_high_as_the_oks() -> None:
    found = measure_reliability(np.array([0.21, 0.29, 0.95]), np.array([0.5, 0.7, 0.4]))
    chart = reliability_chart(1, "run", found)
    first, last = chart.bars
    side = charts.SIDE
    assert (first.x, first.width) == (0.2 * side, 0.1 * side)
    assert first.top == pytest.approx(0.4 * side)
    assert first.score_x == pytest.approx(0.25 * side)
    assert last.count_height == pytest.approx(first.count_height / 2)
    assert first.words == "2 poses: mean score 0.25, mean OKS 0.60"
    assert chart.error == found.error
