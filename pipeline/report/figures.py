"""AP, OKS and PCK of runs with their 95 % intervals, and their differences from the first run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.intervals import Draws, Estimate
from pipeline.evaluation.kept_evaluations import Evaluation
from pipeline.evaluation.localisation import Difference


@dataclass(frozen=True)
class FigureRow:
    """Figures of one run on the people of a report."""

    name: str
    evaluation: Evaluation
    ap: Estimate | None
    """AP, poses ranked by the network's own score; None: there is nobody to find."""
    mean_oks: Estimate
    oks_difference: Difference | None
    """Mean OKS minus the first run's, paired by person; None: of the first run."""
    ap_difference: Difference | None

    @property
    def ap_score_one(self) -> float | None:
        return self.evaluation.score_one["AP"]

    @property
    def ar(self) -> float | None:
        return self.evaluation.own_score["AR"]

    def in_words(self, first: str) -> str:
        """Say in one sentence whether the difference of mean OKS is more than chance."""
        found = self.oks_difference
        assert found is not None
        verdict = "no difference is shown"
        if found.low > 0:
            verdict = f"{self.name} is better"
        elif found.high < 0:
            verdict = f"{first} is better"
        return (
            f"Mean OKS, {self.name} minus {first}: {found.mean:+.4f} "
            f"(95 % interval {found.low:+.4f} to {found.high:+.4f}): {verdict}."
        )


def figure_rows(
    names: Sequence[str],
    evaluations: Sequence[Evaluation],
    image_of_person: NDArray[np.int64],
    seed: int,
) -> list[FigureRow]:
    """Return the figures of all runs, with intervals over the images, the same for all runs.

    image_of_person: (N,), index of the image of every person.
    seed: seed of the bootstrap.
    """
    draws = Draws.of_images(len(evaluations[0].matched.num_people), seed)
    oks = [draws.mean_oks(found.oks, image_of_person) for found in evaluations]
    ap = [draws.average_precision(found.matched) for found in evaluations]
    rows = []
    for place, (name, found) in enumerate(zip(names, evaluations, strict=True)):
        own_ap, first_ap = found.own_score["AP"], evaluations[0].own_score["AP"]
        oks_difference = ap_difference = None
        if place:
            means = [(found.mean_oks, evaluations[0].mean_oks)]
            oks_difference = draws.difference([(oks[place], oks[0])], means)
        if place and own_ap is not None and first_ap is not None:
            ap_difference = draws.difference([(ap[place], ap[0])], [(own_ap, first_ap)])
        rows.append(
            FigureRow(
                name,
                found,
                None if own_ap is None else Estimate.of_samples(own_ap, ap[place]),
                Estimate.of_samples(found.mean_oks, oks[place]),
                oks_difference,
                ap_difference,
            )
        )
    return rows
