"""Heatmaps as uint8 with one float32 scale per map: heat = uint8 * scale, scale = peak / 255.

A fixed scale of 1/255 would clip peaks above 1; fewer than 8 bits move the decoded keypoint.
Bound per value: |stored - max(heat, 0)| <= max(scale / 2, threshold), up to float32 rounding.
"""

import numpy as np
from numpy.typing import NDArray

LEVELS = 255
_SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal


def encode_heatmaps(
    heatmaps: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise heatmaps.

    Args:
        heatmaps: (..., K, Hh, Wh), any range; negative heat is clamped to 0.
        threshold: Heat below it is stored as 0; at least 0.

    Returns:
        levels: (..., K, Hh, Wh) uint8; the peak of a map with heat is 255.
        scale: (..., K), heat per level; 0 for a map without heat at or above the threshold.

    Raises:
        ValueError: a heat is not finite, or the threshold is negative or not finite.
    """
    if heatmaps.dtype != np.float32 or heatmaps.ndim < 2:
        raise ValueError(
            f"heatmaps must be float32 (..., K, Hh, Wh), got {heatmaps.dtype} {heatmaps.shape}"
        )
    if not (np.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold must be finite and at least 0, got {threshold}")
    if not np.isfinite(heatmaps).all():
        raise ValueError("heatmaps must be finite; give such a view the status OUTPUT_NOT_FINITE")
    heat = np.maximum(heatmaps, np.float32(0))
    heat[heat < threshold] = 0
    scale = _scale(heat.max(axis=(-2, -1)))
    divisor = np.where(scale > 0, scale, np.float32(1))[..., None, None]
    np.divide(heat, divisor, out=heat)
    np.rint(heat, out=heat)
    return heat.astype(np.uint8), scale


def decode_heatmaps(levels: NDArray[np.uint8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the heat of stored maps.

    Args:
        levels: (..., K, Hh, Wh) uint8.
        scale: (..., K), heat per level.

    Returns:
        (..., K, Hh, Wh), at least 0.
    """
    return levels.astype(np.float32) * scale[..., None, None]


def _scale(peak: NDArray[np.float32]) -> NDArray[np.float32]:
    scale = np.asarray(peak / np.float32(LEVELS))
    # Subnormal scales are coarse: rounded down, the peak would need more than 255 levels.
    too_small = (scale < _SMALLEST_NORMAL) & (scale.astype(np.float64) * LEVELS < peak)
    scale = np.where(too_small, np.nextafter(scale, np.float32(np.inf)), scale)
    # Next to float32's largest value, 255 levels of a scale rounded up would be infinite.
    too_large = scale.astype(np.float64) * LEVELS > np.finfo(np.float32).max
    return np.where(too_large, np.nextafter(scale, np.float32(0)), scale)
