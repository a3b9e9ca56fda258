"""95 % intervals of figures, and of paired differences between arms, over people and seeds.

A percentile bootstrap: images are drawn with replacement, each with all its people, and the seeds
that two arms share are drawn too, the same ones for both arms. Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 13.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.average_precision import MatchedPoses
from pipeline.evaluation.localisation import Difference

NUM_SAMPLES = 2000
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of_samples(cls, value: float, samples: NDArray[np.float64]) -> Self:
        """Return a figure with the percentiles of its bootstrap samples, (B,)."""
        low, high = np.nanpercentile(samples, PERCENTILES)
        return cls(value, float(low), float(high))


@dataclass(frozen=True)
class Draws:
    """How often each image was drawn; the same samples for all runs, so that they are paired."""

    weights: NDArray[np.int64]  # (B, I)
    seed: int

    @classmethod
    @functools.cache
    def of_images(cls, num_images: int, seed: int, num_samples: int = NUM_SAMPLES) -> Self:
        """Draw as many images as there are, with replacement, in every sample."""
        generator = np.random.default_rng(seed)
        weights = np.stack(
            [
                np.bincount(generator.integers(num_images, size=num_images), minlength=num_images)
                for _ in range(num_samples)
            ]
        )
        return cls(weights, seed)

    def mean_oks(
        self, oks: NDArray[np.float64], image_of_person: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return (B,), the mean OKS of each sample.

        oks: (N,), NaN for people without labelled keypoints, who do not count.
        """
        counts = ~np.isnan(oks)
        of_person = self.weights[:, image_of_person[counts]]
        return np.asarray((of_person @ oks[counts]) / of_person.sum(axis=1))

    def average_precision(self, matched: MatchedPoses) -> NDArray[np.float64]:
        """Return (B,), the AP of each sample."""
        return matched.average_precision(self.weights)

    def difference(
        self,
        samples: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
        figures: Sequence[tuple[float, float]],
    ) -> Difference:
        """Return the mean of one arm minus another over their seeds, with its interval.

        samples: for each seed, the figure of both arms in every sample, each (B,).
        figures: for each seed, the figure of both arms on all people.
        """
        num_seeds = len(samples)
        by_seed = np.stack([one - other for one, other in samples])
        generator = np.random.default_rng([self.seed, num_seeds])
        drawn = generator.integers(num_seeds, size=(len(self.weights), num_seeds))
        means = by_seed[drawn, np.arange(len(drawn))[:, None]].mean(axis=1)
        low, high = np.nanpercentile(means, PERCENTILES)
        mean = float(np.mean([one - other for one, other in figures]))
        return Difference(mean=mean, low=float(low), high=float(high))
