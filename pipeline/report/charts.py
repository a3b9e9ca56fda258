"""Places of lines, ticks and bars in the units of an SVG picture; the template draws them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.reliability import NUM_BINS, Reliability

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 38
"""Space around the axes, for the ticks' labels and the name of the horizontal axis."""
SIDE, STRIP = 280, 36
"""Side of a reliability diagram's square, and height of the strip of counts below it."""
MOST_DOTS = 30
"""Most points of a line that are marked by dots."""
_LOGARITHMIC_FROM = 30
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
_MOST_TICKS = 6
_ROOM = 0.06
"""Share of the range of values that is left free above and below them."""
_LEAST_ROOM = 0.005
"""Share of the largest value that is left free at least: of values that hardly differ the axis
shows no more digits than fit beside it."""


class Tick(NamedTuple):
    """A tick of an axis."""

    place: float
    label: str


@dataclass(frozen=True)
class Series:
    """Values over a horizontal axis."""

    name: str
    points: Sequence[tuple[float, float]]
    run: int | None
    """Place of the run in the report, which gives the colour; None: a reference."""


@dataclass(frozen=True)
class Line:
    """A series in the units of the picture."""

    name: str
    run: int | None
    points: tuple[tuple[float, float], ...]
    last: float
    """The last value."""

    @property
    def path(self) -> str:
        return " ".join(f"{x:g},{y:g}" for x, y in self.points)

    @property
    def has_dots(self) -> bool:
        return len(self.points) <= MOST_DOTS


@dataclass(frozen=True)
class LineChart:
    """A chart with a line for each series."""

    title: str
    x_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Bar:
    """A bin of a reliability diagram."""

    x: float
    width: float
    top: float
    """Place of the mean OKS."""
    score_x: float
    """Place of the mean score."""
    count_height: float
    words: str


@dataclass(frozen=True)
class ReliabilityChart:
    """A reliability diagram: mean OKS over score, and the number of poses in each bin."""

    run: int
    name: str
    error: float
    bars: tuple[Bar, ...]


def line_chart(title: str, series: Sequence[Series], x_name: str) -> LineChart:
    """Lay series out over one horizontal axis, from 0; none of them is empty.

    The vertical axis is logarithmic where positive values differ by a factor of 30 or more.
    x_name: what the horizontal axis counts.
    """
    largest_x = max(x for one in series for x, _ in one.points)
    unit, words = _unit(largest_x)
    values = [y for one in series for _, y in one.points]
    is_log = min(values) > 0 and max(values) / min(values) >= _LOGARITHMIC_FROM
    scale = math.log10 if is_log else float
    low, high = scale(min(values)), scale(max(values))
    room = max(_ROOM * (high - low), _LEAST_ROOM * max(abs(low), abs(high))) or 0.5
    low, high = low - room, high + room

    def x_place(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * x / (largest_x or 1), 2)

    def y_place(scaled: float) -> float:
        share = (scaled - low) / (high - low)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 2)

    x_values = ticks(0, largest_x / unit)
    y_values = _log_ticks(low, high) if is_log else ticks(low, high)
    return LineChart(
        title=title,
        x_name=f"{x_name}{words}",
        x_ticks=_labelled(x_values, [x_place(x * unit) for x in x_values]),
        y_ticks=_labelled(y_values, [y_place(scale(y)) for y in y_values]),
        lines=tuple(
            Line(
                one.name,
                one.run,
                tuple((x_place(x), y_place(scale(y))) for x, y in one.points),
                one.points[-1][1],
            )
            for one in series
        ),
    )


def reliability_chart(run: int, name: str, found: Reliability) -> ReliabilityChart:
    """Lay a reliability diagram out; empty bins have no bar."""
    width, most = SIDE / NUM_BINS, int(found.counts.max())
    bars = []
    for place in np.flatnonzero(found.counts).tolist():
        count, score, oks = int(found.counts[place]), found.scores[place], found.oks[place]
        bars.append(
            Bar(
                x=width * place,
                width=width,
                top=round(SIDE * (1 - float(oks)), 2),
                score_x=round(SIDE * float(np.clip(score, 0, 1)), 2),
                count_height=round(STRIP * count / most, 2),
                words=f"{count} poses: mean score {score:.2f}, mean OKS {oks:.2f}",
            )
        )
    return ReliabilityChart(run, name, found.error, tuple(bars))


def ticks(low: float, high: float) -> list[float]:
    """Return three to six round values between two numbers: multiples of 1, 2 or 5 times a power
    of ten.
    """
    if high <= low:
        return [low]
    rough = (high - low) / _MOST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = min(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _labelled(values: Sequence[float], places: Sequence[float]) -> tuple[Tick, ...]:
    """Return ticks whose labels have equally many decimals, unless one needs an exponent."""
    labels = [f"{value:g}" for value in values]
    if not any("e" in label for label in labels):
        decimals = max((len(label.partition(".")[2]) for label in labels), default=0)
        labels = [f"{value:.{decimals}f}" for value in values]
    return tuple(Tick(place, label) for place, label in zip(places, labels, strict=True))


def _log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten within a logarithmic range, with twice and five times of them if few."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    factors = (1,) if high - low > 2 else (1, 2, 5)
    every = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [value for value in every if low <= math.log10(value) <= high]


def _unit(largest: float) -> tuple[float, str]:
    """Return the unit of an axis, and its words."""
    for unit, words in ((1e6, ", millions"), (1e3, ", thousands")):
        if largest >= 2 * unit:
            return unit, words
    return 1.0, ""
