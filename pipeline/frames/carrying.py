"""A teacher's predictions, carried from the crop that it predicted on into another view.

A pose moves with the crop: where the affines from the image to both crops are known, keypoints are
carried exactly and heatmaps by bilinear interpolation. What lies outside the teacher's crop is
unknown there, and is marked so: it is not a place without heat.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frames.geometry import Affine, SizeHW, apply, compose, invert, is_mirroring

_TOLERANCE = 1e-6
"""Rounding of composed affines, in heatmap cells."""


@dataclass(frozen=True)
class CarriedHeatmaps:
    """Heatmaps of B views, in the frame of each view's own heatmap."""

    heatmaps: NDArray[Any]  # (B, K, Hh, Wh), in the dtype of the teacher's; 0 where not known
    is_known: NDArray[np.bool_]  # (B, Hh, Wh), cells that lie on the teacher's heatmap


def carry_channels(
    values: NDArray[Any], is_mirrored: NDArray[np.bool_], flip_indices: tuple[int, ...]
) -> NDArray[Any]:
    """Exchange left and right of those people whose view mirrors the teacher's crop.

    values: (B, K, ...).
    is_mirrored: (B,).
    """
    if not is_mirrored.any():
        return values
    is_mirrored = is_mirrored.reshape(-1, *[1] * (values.ndim - 1))
    return np.where(is_mirrored, values[:, list(flip_indices)], values)


def carry_keypoints(
    keypoints: NDArray[np.floating[Any]], crop_to_view: Affine, flip_indices: tuple[int, ...]
) -> NDArray[np.float64]:
    """Map keypoints from the teacher's crops into views of the same people.

    keypoints: (B, K, 2) as (x, y), pixels of the teacher's crops.
    crop_to_view: (B, 2, 3), pixels of the teacher's crops to pixels of the views.
    Returns (B, K, 2), pixels of the views; left and right are exchanged in mirrored ones.
    """
    points = apply(crop_to_view, keypoints)
    return carry_channels(points, is_mirroring(crop_to_view), flip_indices)


def carry_heatmaps(
    heatmaps: NDArray[Any],
    crop_to_view: Affine,
    crop_to_heatmap: Affine,
    view_to_heatmap: Affine,
    heatmap_size_hw: SizeHW,
    flip_indices: tuple[int, ...],
) -> CarriedHeatmaps:
    """Resample heatmaps into views of the same people, by bilinear interpolation.

    heatmaps: (B, K, hh, wh) uint8 or float, of the teacher's crops.
    crop_to_view: (B, 2, 3), pixels of the teacher's crops to pixels of the views.
    crop_to_heatmap: (2, 3), pixels of the teacher's crops to the cells of its heatmaps.
    view_to_heatmap: (2, 3), pixels of a view to the cells of the view's heatmaps.
    heatmap_size_hw: size of the view's heatmaps.
    """
    rows, columns = heatmap_size_hw
    moved = compose(view_to_heatmap, compose(crop_to_view, invert(crop_to_heatmap)))
    is_known = known_cells(moved, heatmaps.shape[-2:], heatmap_size_hw)
    heatmaps = carry_channels(heatmaps, is_mirroring(crop_to_view), flip_indices)
    # OpenCV warps no half-precision maps, and one channel exactly, but several only roughly.
    source = heatmaps.astype(np.float32) if heatmaps.dtype == np.float16 else heatmaps
    carried = np.empty((*heatmaps.shape[:2], rows, columns), source.dtype)
    for maps, affine, of_person in zip(source, moved, carried, strict=True):
        for heatmap, out in zip(maps, of_person, strict=True):
            cv2.warpAffine(
                heatmap,
                affine,
                (columns, rows),
                dst=out,
                flags=cv2.INTER_LINEAR,
            )
    carried *= is_known[:, None].astype(carried.dtype)
    return CarriedHeatmaps(carried, is_known)


def known_cells(
    moved: Affine, source_size_hw: tuple[int, ...], target_size_hw: SizeHW
) -> NDArray[np.bool_]:
    """Return (B, Hh, Wh), the target cells whose centre lies among the centres of source cells.

    moved: (B, 2, 3), source cells to target cells.
    """
    rows, columns = target_size_hw
    back = invert(moved)[:, None, None]  # (B, 1, 1, 2, 3)
    x, y = np.arange(columns), np.arange(rows)[:, None]
    source_x = back[..., 0, 0] * x + back[..., 0, 1] * y + back[..., 0, 2]
    source_y = back[..., 1, 0] * x + back[..., 1, 1] * y + back[..., 1, 2]
    is_inside_x = (source_x >= -_TOLERANCE) & (source_x <= source_size_hw[1] - 1 + _TOLERANCE)
    is_inside_y = (source_y >= -_TOLERANCE) & (source_y <= source_size_hw[0] - 1 + _TOLERANCE)
    return np.asarray(is_inside_x & is_inside_y)
