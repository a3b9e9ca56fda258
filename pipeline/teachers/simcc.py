"""Heatmaps of networks that predict one distribution along each axis: SimCC and RTMPose.

SimCC: Li et al., ECCV 2022; RTMPose: Jiang et al., 2023, whose outputs are Gaussians of a height
of up to 1. Both divide a crop of W pixels into W * r bins, r the split ratio: bin b lies at pixel
b / r. The heat of a cell is the product of both distributions there.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TeacherError
from pipeline.frames.geometry import SizeHW

STRIDE = 4
"""Pixels of the crop for each cell, as in the heatmaps of most networks."""
_SMOOTHING = 0.7
"""Standard deviation, in cells, of the Gaussian that distributions are smoothed with.

Bins are finer than cells. Without smoothing the cells would miss a peak between them; with it DARK
finds the centre of a Gaussian of at least 3 bins to 0.001 pixels."""


class _Axis(NamedTuple):
    """Weights that bring the distribution along one axis to cells."""

    to_bins: NDArray[np.float32]  # (L, L), smooths at each bin
    to_cells: NDArray[np.float32]  # (L, N), smooths at the centre of each cell

    def cells(self, bins: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring (B, K, L) distributions to (B, K, N) cells; the peak keeps its height."""
        heat = np.maximum(bins, 0)
        smooth = (heat @ self.to_bins).max(axis=-1, keepdims=True)
        height = heat.max(axis=-1, keepdims=True) / np.maximum(smooth, np.finfo(np.float32).tiny)
        return np.asarray(height * (heat @ self.to_cells), np.float32)


class SimccGrid(NamedTuple):
    """The grid of cells that two distributions are brought to, in the frame ``half-pixel``."""

    x_axis: _Axis
    y_axis: _Axis

    @classmethod
    def of(cls, input_size_hw: SizeHW, num_bins_xy: tuple[int, int], source: str) -> Self:
        """Read the split ratio from the sizes.

        source: of the network, for messages.

        Raises:
            TeacherError: the sizes are not those of two axes of the crop.
        """
        height, width = input_size_hw
        bins_x, bins_y = num_bins_xy
        if bins_x * height != bins_y * width or bins_x < width or height % 4 or width % 4:
            raise TeacherError(
                f"{source} has distributions of {bins_x} and {bins_y} bins for crops of "
                f"{height}x{width} (height x width); expected the same number of bins for each "
                "pixel of both axes, and sizes divisible by 4; export it with one heatmap output"
            )
        ratio = bins_x / width
        return cls(_axis(bins_x, width // STRIDE, ratio), _axis(bins_y, height // STRIDE, ratio))

    @property
    def size_hw(self) -> SizeHW:
        return self.y_axis.to_cells.shape[1], self.x_axis.to_cells.shape[1]

    def heatmaps(
        self, simcc_x: NDArray[np.float32], simcc_y: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return (B, K, Hh, Wh) heatmaps of (B, K, W * r) and (B, K, H * r) distributions.

        Negative values count as no heat.
        """
        x, y = self.x_axis.cells(simcc_x), self.y_axis.cells(simcc_y)
        return y[..., :, np.newaxis] * x[..., np.newaxis, :]


def _axis(num_bins: int, num_cells: int, ratio: float) -> _Axis:
    bins = np.arange(num_bins)
    cells = ratio * (STRIDE * (np.arange(num_cells) + 0.5) - 0.5)
    deviation = _SMOOTHING * STRIDE * ratio

    def weights(centres: NDArray[np.floating]) -> NDArray[np.float32]:
        return np.exp(-0.5 * ((bins[:, np.newaxis] - centres) / deviation) ** 2).astype(np.float32)

    return _Axis(weights(bins.astype(np.float64)), weights(cells))


def axes_of(
    names: Sequence[str], num_bins: Sequence[int], input_size_hw: SizeHW
) -> tuple[int, int]:
    """Return which of two outputs is that along x, and which that along y.

    Names that end in x and y tell; else the numbers of bins; for a square crop the first is x.
    """
    ends = [name.lower()[-1:] for name in names]
    if sorted(ends) == ["x", "y"]:
        return ends.index("x"), ends.index("y")
    height, width = input_size_hw
    first, second = num_bins
    is_y_first = first * width == second * height and first != second
    return (1, 0) if is_y_first else (0, 1)
