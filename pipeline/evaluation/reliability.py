"""Whether the score of a pose is the OKS that it has: a reliability diagram, and its error.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017, with OKS in the place of accuracy
(https://arxiv.org/abs/1706.04599, equation 3).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Poses in bins of equal width of their score, from 0 to 1."""

    counts: NDArray[np.int64]  # (NUM_BINS,), poses in each bin
    scores: NDArray[np.float64]  # (NUM_BINS,), mean score; NaN: the bin is empty
    oks: NDArray[np.float64]  # (NUM_BINS,), mean OKS; NaN: the bin is empty
    error: float
    """Expected calibration error: mean distance of a bin's OKS from its score, by its poses."""


def measure_reliability(scores: NDArray[np.float64], oks: NDArray[np.float64]) -> Reliability:
    """Compare the scores of poses with their OKS.

    A score beyond 0 or 1 counts in the first or the last bin. A pose without OKS counts nowhere.

    scores, oks: (N,) float64 of the same poses, OKS in [0, 1] or NaN; at least one has an OKS.
    """
    has_oks = ~np.isnan(oks)
    scores, oks = scores[has_oks], oks[has_oks]
    bins = np.clip((scores * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    with np.errstate(invalid="ignore"):
        mean_score = np.bincount(bins, scores, NUM_BINS) / counts
        mean_oks = np.bincount(bins, oks, NUM_BINS) / counts
    distance = np.abs(mean_score - mean_oks)[counts > 0]
    error = float(distance @ counts[counts > 0] / len(scores))
    return Reliability(counts, mean_score, mean_oks, error)
