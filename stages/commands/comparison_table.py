"""The table of a comparison at a terminal: one row per arm, the mean over its seeds."""

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.evaluation.comparison import Arm, ArmDifference
from pipeline.wording import counted


def print_comparison(
    console: Console, arms: Sequence[Arm], differences: Sequence[ArmDifference], num_people: int
) -> None:
    """Print the arms, and the paired difference of their mean OKS whatever its sign."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for title in ("AP", "AP, score 1", "mean OKS", "params", "mult-adds", "ms"):
        table.add_column(title, justify="right")
    for name in dict.fromkeys(arm.name for arm in arms):
        table.add_row(*_row(name, [arm for arm in arms if arm.name == name]))
    console.print(table)
    console.print(
        "AP: ranked by each arm's own score. ms: one person, this CPU, no flip test; all figures "
        "else with it.",
        style="dim",
    )
    for found in differences:
        difference = found.difference
        console.print(
            f"mean OKS, {found.one} minus {found.other}: {difference.mean:+.4f} (95 % interval "
            f"over {counted(num_people, 'person')} {difference.low:+.4f} to "
            f"{difference.high:+.4f}): {_verdict(found)}"
        )


def _row(name: str, arms: Sequence[Arm]) -> list[str]:
    figures = [arm.figures for arm in arms]
    own, one, oks = (
        _mean_and_spread(values)
        for values in (
            [found.own_score.AP for found in figures],
            [found.score_one.AP for found in figures],
            [found.mean_oks for found in figures],
        )
    )
    costs = [arm.cost for arm in arms if arm.cost is not None]
    if not costs:
        return [name, own, one, oks, "-", "-", "-"]
    milliseconds = float(np.median([cost.milliseconds for cost in costs]))
    return [
        *(name, own, one, oks),
        *(_millions(costs[0].num_parameters, 2), _millions(costs[0].num_multiply_adds, 0)),
        f"{milliseconds:.1f}",
    ]


def _millions(count: int | None, digits: int) -> str:
    return "-" if count is None else f"{count / 1e6:.{digits}f} M"


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
