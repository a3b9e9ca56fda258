"""Heatmaps as stored: heat = stored * scale, one float32 scale per map.

``uint8``: scale = peak / 255, as a fixed 1/255 would clip peaks above 1, and fewer than 8 bits move
the decoded keypoint; the rule is that of ``heatmap_levels``. |heat - max(given, 0)| <= max(scale,
threshold), up to float32 rounding.
``float16``: scale 1, |heat - given| <= float16's rounding, negative heat included.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store_schemas.heatmap_levels import levels_of_heat
from store_schemas.profiles import DEFAULT_PROFILE, PROFILES, HeatmapProfile

MEASURED_ROWS = 16
"""The codec's error is measured over the people whose row's sha256 is divisible by it."""


def quantise_heatmaps(
    heatmaps: NDArray[np.float32],
    threshold: float,
    profile: HeatmapProfile = PROFILES[DEFAULT_PROFILE],
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Quantise heatmaps.

    Args:
        heatmaps: (..., K, Hh, Wh), any range; ``uint8`` clamps negative heat to 0.
        threshold: Largest error far from a map's peak, in heat; at least 0. ``float16`` has none.

    Returns:
        stored: (..., K, Hh, Wh) uint8, the peak of a map with heat being 255, or float16.
        scale: (..., K), heat per stored 1; 0 for a map of ``uint8`` without heat above 0, 1 for
            every map of ``float16``.

    Raises:
        ValueError: a heat is not finite, or no finite float16; the threshold is negative or not
            finite.
    """
    if heatmaps.dtype != np.float32 or heatmaps.ndim < 2:
        raise ValueError(
            f"heatmaps must be float32 (..., K, Hh, Wh), got {heatmaps.dtype} {heatmaps.shape}"
        )
    if not (np.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold must be finite and at least 0, got {threshold}")
    if not np.isfinite(heatmaps).all():
        raise ValueError("heatmaps must be finite; give such a view the status OUTPUT_NOT_FINITE")
    if profile.dtype == "float16":
        return _encode_float16(heatmaps)
    return levels_of_heat(heatmaps, threshold, profile.exact_radius)


def dequantise_heatmaps(stored: NDArray[Any], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the heat of stored maps.

    Args:
        stored: (..., K, Hh, Wh) uint8 or float16.
        scale: (..., K), heat per stored 1.

    Returns:
        (..., K, Hh, Wh); at least 0 for uint8.
    """
    return stored.astype(np.float32) * scale[..., None, None]


def error_bound(
    stored: NDArray[Any], scale: NDArray[np.float32], threshold: float
) -> NDArray[np.float32]:
    """Return the largest allowed difference of stored from given heat, (..., K, 1, 1) or per value.

    Args:
        stored: (..., K, Hh, Wh) uint8 or float16.
        scale: (..., K), heat per stored 1.
    """
    if stored.dtype == np.float16:
        # half a unit of the 11 significant bits, or of the subnormal ones
        magnitude = np.abs(stored.astype(np.float32)) * np.float32(2.0**-11)
        half_step = np.maximum(magnitude, np.float32(2.0**-25))
        return np.asarray(half_step * scale[..., None, None])
    return np.maximum(scale, np.float32(threshold))[..., None, None]


@dataclass(frozen=True)
class CodecError:
    """Difference of stored heat from the teacher's, negative heat of ``uint8`` counting as 0."""

    largest: float = 0.0
    sum_of_squares: float = 0.0
    num_values: int = 0

    @property
    def rms(self) -> float | None:
        """Root of the mean square; None where nothing was measured."""
        return (self.sum_of_squares / self.num_values) ** 0.5 if self.num_values else None


NOT_MEASURED = CodecError()


def measure_codec_error(
    heatmaps: NDArray[np.float32], stored: NDArray[Any], scale: NDArray[np.float32]
) -> CodecError:
    """Compare heatmaps (..., K, Hh, Wh) with their stored form."""
    given = heatmaps if stored.dtype == np.float16 else np.maximum(heatmaps, np.float32(0))
    difference = (dequantise_heatmaps(stored, scale) - given).astype(np.float64)
    largest = float(np.abs(difference).max(initial=0.0))
    return CodecError(largest, float(np.square(difference).sum()), difference.size)


def sum_codec_errors(errors: Iterable[CodecError]) -> CodecError:
    """Return the error over all measured values, added up in the given order."""
    total = NOT_MEASURED
    for error in errors:
        total = CodecError(
            max(total.largest, error.largest),
            total.sum_of_squares + error.sum_of_squares,
            total.num_values + error.num_values,
        )
    return total


def is_measured(row: int) -> bool:
    """Return whether the codec's error is measured over a person; depends on the row alone."""
    digest = hashlib.sha256(row.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "big") % MEASURED_ROWS == 0


def _encode_float16(
    heatmaps: NDArray[np.float32],
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    largest = np.abs(heatmaps).max(initial=0.0)
    if largest > np.finfo(np.float16).max:
        raise ValueError(f"heat must be at most 65504 to be stored as float16, got {largest}")
    return heatmaps.astype(np.float16), np.ones(heatmaps.shape[:-2], np.float32)
