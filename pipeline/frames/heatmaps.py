"""Heatmaps: encoded from keypoints as unbiased Gaussians, decoded to sub-pixel peaks, mirrored.

DARK: Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation" (CVPR
2020). Quarter-pixel: the decoding of Stacked Hourglass and HRNet. All points are in the heatmap
frame; ``geometry.crop_to_heatmap`` maps crop pixels to it.
"""

from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import ConfigError
from pipeline.frames.geometry import SizeHW
from pipeline.settings import Decoding

DECODINGS: tuple[Decoding, ...] = get_args(Decoding)

DARK_KERNEL = 11
"""Side of the Gaussian kernel with which DARK blurs a map, which fits targets of sigma 2."""
_DARK_SIGMA = 0.3 * ((DARK_KERNEL - 1) * 0.5 - 1) + 0.8  # OpenCV's rule for a kernel's size


def encode_keypoints(
    points: ArrayLike, heatmap_size_hw: SizeHW, sigma: float = 2.0
) -> NDArray[np.float32]:
    """Draw an unbiased Gaussian of peak 1 around every point; a point may lie outside the map.

    points: (..., K, 2) as (x, y), heatmap frame; NaN gives an all-zero map.
    sigma: standard deviation of the Gaussian, in cells.
    Returns (..., K, Hh, Wh) float32 in [0, 1].
    """
    points = np.asarray(points, np.float64)
    rows, columns = heatmap_size_hw
    across = np.exp(-((np.arange(columns) - points[..., :1]) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(rows) - points[..., 1:]) ** 2) / (2 * sigma**2))
    heatmaps = down[..., :, None] * across[..., None, :]
    return np.nan_to_num(heatmaps).astype(np.float32)


def decode_heatmaps(
    heatmaps: NDArray[np.float32], method: Decoding = "dark"
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Decode every map to the point of its peak.

    heatmaps: (B, K, Hh, Wh), finite.
    method: ``argmax`` the highest cell; ``quarter`` that, moved a quarter cell towards its higher
        neighbour; ``dark`` a Newton step on the logarithm of the blurred map, at most one cell.
    Returns points (B, K, 2) as (x, y) float64, heatmap frame; and peaks (B, K), the heat of the
    highest cell.
    """
    batch, num_keypoints, rows, columns = heatmaps.shape
    maps = heatmaps.reshape(batch * num_keypoints, rows, columns)
    flat = maps.reshape(len(maps), -1).argmax(axis=1)
    row, column = np.divmod(flat, columns)
    peaks = maps[np.arange(len(maps)), row, column]
    points = np.stack([column, row], axis=1).astype(np.float64)
    if method == "quarter":
        points += _quarter_steps(maps, row, column)
    elif method == "dark":
        points += _dark_steps(maps, row, column)
    elif method != "argmax":
        raise ConfigError(f"decoding is {method!r}; expected one of {', '.join(DECODINGS)}")
    return points.reshape(batch, num_keypoints, 2), peaks.reshape(batch, num_keypoints)


def mirror_heatmaps(
    heatmaps: NDArray[np.float32], flip_indices: tuple[int, ...], shift: int = 0
) -> NDArray[np.float32]:
    """Mirror the maps of a mirrored crop back: swap pairs, reverse columns, shift to the right.

    heatmaps: (B, K, Hh, Wh), and so is what is returned.
    shift: whole cells to shift to the right, which closes ``geometry.mirror_gap``; the leftmost
        columns keep their reversed values, as in HRNet's flip test.
    """
    mirrored = heatmaps[:, list(flip_indices), :, ::-1].copy()
    if shift:
        mirrored[..., shift:] = mirrored[..., :-shift].copy()
    return mirrored


def _quarter_steps(
    maps: NDArray[np.float32], row: NDArray[np.intp], column: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return (n, 2) steps of a quarter cell; zero for peaks at the border, as in HRNet."""
    rows, columns = maps.shape[1:]
    inside = (row > 0) & (row < rows - 1) & (column > 0) & (column < columns - 1)
    patches = _patches(maps, row, column, radius=1)
    slopes = np.stack(
        [patches[:, 1, 2] - patches[:, 1, 0], patches[:, 2, 1] - patches[:, 0, 1]], axis=1
    )
    return 0.25 * np.sign(slopes.astype(np.float64)) * inside[:, None]


def _dark_steps(
    maps: NDArray[np.float32], row: NDArray[np.intp], column: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return (n, 2) Newton steps on the logarithm of the blurred maps.

    Only the 5 x 5 cells around a peak are needed, so only the patch that feeds them is blurred.
    """
    rows, columns = maps.shape[1:]
    inside = (row > 1) & (row < rows - 2) & (column > 1) & (column < columns - 2)
    half = DARK_KERNEL // 2
    patches = _patches(maps, row, column, radius=half + 2).astype(np.float64)
    offsets = np.arange(-half, half + 1)
    kernel = np.exp(-(offsets**2) / (2 * _DARK_SIGMA**2))
    blur = np.zeros((5, DARK_KERNEL + 4))
    for cell in range(5):
        blur[cell, cell : cell + DARK_KERNEL] = kernel / kernel.sum()
    heat = np.log(np.maximum(blur @ patches @ blur.T, 1e-10))
    gradient_x = 0.5 * (heat[:, 2, 3] - heat[:, 2, 1])
    gradient_y = 0.5 * (heat[:, 3, 2] - heat[:, 1, 2])
    curvature_xx = 0.25 * (heat[:, 2, 4] - 2 * heat[:, 2, 2] + heat[:, 2, 0])
    curvature_yy = 0.25 * (heat[:, 4, 2] - 2 * heat[:, 2, 2] + heat[:, 0, 2])
    curvature_xy = 0.25 * (heat[:, 3, 3] - heat[:, 1, 3] - heat[:, 3, 1] + heat[:, 1, 1])
    determinant = curvature_xx * curvature_yy - curvature_xy**2
    # Only a true maximum has a Newton step that points to a peak.
    is_peak = inside & (determinant > 1e-12) & (curvature_xx < 0)
    safe = np.where(is_peak, determinant, 1.0)
    step_x = -(curvature_yy * gradient_x - curvature_xy * gradient_y) / safe
    step_y = -(curvature_xx * gradient_y - curvature_xy * gradient_x) / safe
    steps = np.clip(np.stack([step_x, step_y], axis=1), -1.0, 1.0)
    return np.asarray(steps * is_peak[:, None])


def _patches(
    maps: NDArray[np.float32], row: NDArray[np.intp], column: NDArray[np.intp], radius: int
) -> NDArray[np.float32]:
    """Return the (n, 2 radius + 1, 2 radius + 1) cells around each peak; zero outside the map."""
    rows, columns = maps.shape[1:]
    window = np.arange(-radius, radius + 1)
    down, across = row[:, None] + window, column[:, None] + window
    cells = maps[
        np.arange(len(maps))[:, None, None],
        np.clip(down, 0, rows - 1)[:, :, None],
        np.clip(across, 0, columns - 1)[:, None, :],
    ]
    inside = ((down >= 0) & (down < rows))[:, :, None]
    inside = inside & ((across >= 0) & (across < columns))[:, None, :]
    return np.where(inside, cells, np.float32(0))
