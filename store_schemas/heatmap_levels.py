"""Heat as levels of 0..255: exact near a map's peak, in coarser steps everywhere else.

Most bytes of a map are its floor, which no decoding reads. DARK reads the 15 x 15 cells around
the highest one (its 5 x 5 cells, blurred with a kernel of 11), hence ``DARK_RADIUS``: within it a
decoded keypoint does not depend on the threshold at all. A plain threshold that is as small moves
points by whole cells (docs/codec.md).

1. scale = peak / 255. The highest cell (the first of equal ones) alone has level 255, so the
   stored map peaks where the given one does; cells that round to 255 beside it get 254.
2. At most ``exact_radius`` cells from it, across, down or both, a level is heat / scale, rounded.
3. Elsewhere it is the nearest multiple of step = floor(2 * threshold / scale), at least 1.

Bound per value: |level * scale - max(heat, 0)| <= max(scale, threshold), up to float32 rounding
(a subnormal scale, of heat below 1e-35, is as coarse as itself).
"""

import numpy as np
from numpy.typing import NDArray

LEVELS = 255
DARK_RADIUS = 7
_LARGEST_STEP = 2 * LEVELS  # any heat is then stored as 0
_SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal


def levels_of_heat(
    heatmaps: NDArray[np.float32], threshold: float, exact_radius: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise heatmaps.

    Args:
        heatmaps: (..., K, Hh, Wh), finite, any range; negative heat is clamped to 0.
        threshold: Largest error of a cell far from the peak, in heat; at least 0.
        exact_radius: Cells around the peak that are stored without coarser steps.

    Returns:
        levels: (..., K, Hh, Wh) uint8; 255 at the highest cell alone of a map with heat.
        scale: (..., K), heat per level; 0 for a map without heat above 0.
    """
    *leading, rows, columns = heatmaps.shape
    heat = heatmaps.reshape(-1, rows * columns)
    highest = heat.argmax(axis=1)
    every_map = np.arange(len(heat))
    scale = _scale(np.maximum(heat[every_map, highest], np.float32(0)))
    divisor = np.where(scale > 0, scale, np.float32(1))[:, None]
    step = np.clip(np.floor(2 * threshold / divisor.astype(np.float64)), 1, _LARGEST_STEP)
    with np.errstate(over="ignore"):  # of negative heat, which is clamped at the end
        if (step == 1).all():
            rounded = np.rint(heat / divisor)
        else:
            near = _cells_around(highest, rows, columns, exact_radius)  # (n, cells)
            exact = np.rint(heat[every_map[:, None], near] / divisor)
            step = step.astype(np.float32)
            rounded = np.rint(heat / (divisor * step))
            rounded *= step
            rounded[every_map[:, None], near] = exact
    # both bounds at once: numpy's minimum and maximum with a number take three times as long each
    np.clip(rounded, np.float32(0), np.float32(LEVELS - 1), out=rounded)
    levels = rounded.astype(np.uint8)
    levels[every_map, highest] = np.where(scale > 0, LEVELS, 0)
    return levels.reshape(heatmaps.shape), scale.reshape(leading)


def _cells_around(cell: NDArray[np.intp], rows: int, columns: int, radius: int) -> NDArray[np.intp]:
    """Return the (n, (2 radius + 1)^2) cells of the square around each; at borders some repeat."""
    row, column = np.divmod(cell, columns)
    offsets = np.arange(-radius, radius + 1)
    down = np.clip(row[:, None] + offsets, 0, rows - 1)
    across = np.clip(column[:, None] + offsets, 0, columns - 1)
    return (down[:, :, None] * columns + across[:, None, :]).reshape(len(cell), -1)


def _scale(peak: NDArray[np.float32]) -> NDArray[np.float32]:
    scale = np.asarray(peak / np.float32(LEVELS))
    # Subnormal scales are coarse: rounded down, the peak would need more than 255 levels.
    too_small = (scale < _SMALLEST_NORMAL) & (scale.astype(np.float64) * LEVELS < peak)
    scale = np.where(too_small, np.nextafter(scale, np.float32(np.inf)), scale)
    # Next to float32's largest value, 255 levels of a scale rounded up would be infinite.
    too_large = scale.astype(np.float64) * LEVELS > np.finfo(np.float32).max
    return np.where(too_large, np.nextafter(scale, np.float32(0)), scale)
