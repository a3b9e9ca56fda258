"""Frames and the affines between them. All code that maps a point calls this file.

Three frames: *image*, *crop* (a network's input) and *heatmap* (a network's output). In each, a
pixel's centre has integer coordinates, so an image of width W covers [-0.5, W - 0.5]; resizing by
a factor r is therefore x' = (x + 0.5) r - 0.5, and mirroring is x' = W - 1 - x.

One choice is inherited: a box's centre (x + w/2, y + h/2) maps to (W/2, H/2) of the crop, as in
HRNet and mmpose. Aligning the box's area with the crop's area instead moves a crop by less than a
pixel, which is harmless by itself, but published teachers were trained and measured this way.

Affines are (2, 3) float64, named ``source_to_target``, and may have leading batch dimensions.
"""

from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import ConfigError
from pipeline.settings import PADDING, HeatmapFrame

Affine = NDArray[np.float64]
SizeHW = tuple[int, int]
HEATMAP_FRAMES: tuple[HeatmapFrame, ...] = get_args(HeatmapFrame)


def compose(second: Affine, first: Affine) -> Affine:
    """Return the affine that applies ``first``, then ``second``; leading dimensions broadcast."""
    linear = second[..., :, :2] @ first[..., :, :2]
    offset = second[..., :, :2] @ first[..., :, 2:] + second[..., :, 2:]
    return np.concatenate([linear, offset], axis=-1)


def invert(affine: Affine) -> Affine:
    """Return the affine target_to_source of an affine source_to_target.

    Raises:
        numpy.linalg.LinAlgError: the affine is singular.
    """
    linear = np.linalg.inv(affine[..., :, :2])
    return np.concatenate([linear, -linear @ affine[..., :, 2:]], axis=-1)


def apply(affine: Affine, points: ArrayLike) -> NDArray[np.float64]:
    """Map points by an affine.

    affine: (..., 2, 3); its leading dimensions are those of ``points`` before the last two.
    points: (..., J, 2) as (x, y), source frame.
    Returns (..., J, 2), target frame. NaN stays NaN.
    """
    moved = np.asarray(points, np.float64) @ np.swapaxes(affine[..., :, :2], -1, -2)
    return np.asarray(moved + np.swapaxes(affine[..., :, 2:], -1, -2))


def is_mirroring(affine: Affine) -> NDArray[np.bool_]:
    """Return, for each affine (..., 2, 3), whether it turns left into right (determinant < 0)."""
    return np.asarray(np.linalg.det(affine[..., :, :2]) < 0)


def resize_affine(source_size_hw: SizeHW, target_size_hw: SizeHW) -> Affine:
    """Return the affine between two sizes of one crop: x' = (x + 0.5) r - 0.5."""
    scale_y = target_size_hw[0] / source_size_hw[0]
    scale_x = target_size_hw[1] / source_size_hw[1]
    return np.array([[scale_x, 0.0, 0.5 * scale_x - 0.5], [0.0, scale_y, 0.5 * scale_y - 0.5]])


def size_in_aspect(size_hw: SizeHW, crop_size_hw: SizeHW) -> SizeHW:
    """Return a size as high as the given one, in the aspect of a crop."""
    height = size_hw[0]
    return height, round(height * crop_size_hw[1] / crop_size_hw[0])


def mirror_affine(width: int) -> Affine:
    """Return x' = width - 1 - x, which mirrors a crop of that width onto itself."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def crop_to_wide_crop(margin_hw: SizeHW) -> Affine:
    """Return the shift from a crop's pixels to those of the same crop with a margin around it.

    margin_hw: whole pixels above and below, and left and right; the density stays the same, so
        the crop is the wide crop's central part, pixel for pixel.
    """
    return np.array([[1.0, 0.0, margin_hw[1]], [0.0, 1.0, margin_hw[0]]])


def crop_to_heatmap(frame: HeatmapFrame, input_size_hw: SizeHW, heatmap_size_hw: SizeHW) -> Affine:
    """Return the (2, 3) affine from crop pixels to the cells of a teacher's heatmap.

    frame: the convention of the teacher's training targets: ``msra`` h = x w / W (HRNet,
        SimpleBaseline, mmpose's classic heads), ``half-pixel`` h = (x + 0.5) w / W - 0.5,
        ``udp`` h = x (w - 1) / (W - 1).
    """
    if frame == "half-pixel":
        return resize_affine(input_size_hw, heatmap_size_hw)
    (height, width), (rows, columns) = input_size_hw, heatmap_size_hw
    if frame == "msra":
        return np.array([[columns / width, 0.0, 0.0], [0.0, rows / height, 0.0]])
    if frame == "udp":
        scale_x, scale_y = (columns - 1) / (width - 1), (rows - 1) / (height - 1)
        return np.array([[scale_x, 0.0, 0.0], [0.0, scale_y, 0.0]])
    raise ConfigError(f"heatmap frame is {frame!r}; expected one of {', '.join(HEATMAP_FRAMES)}")


def mirror_gap(affine: Affine, input_width: int, heatmap_width: int) -> float:
    """Return the mirror gap of a heatmap frame, in cells.

    It is how far the heatmap of a mirrored crop, mirrored back, lies left of the heatmap of the
    crop itself. Reversing the columns puts the crop's point x at (w - 1) - h(W - 1 - x); h(x) minus
    that is 0.75 for msra at stride 4, and 0 for the frames that are symmetric.

    affine: (2, 3), crop_to_heatmap; h is its x.
    """
    scale, offset = float(affine[0, 0]), float(affine[0, 2])
    return scale * (input_width - 1) + 2 * offset - (heatmap_width - 1)


def padded_box_size(bbox_xywh: ArrayLike, input_size_hw: SizeHW, padding: float) -> Affine:
    """Return (..., 2) as (width, height): a box's size grown to the input's aspect, times padding.

    bbox_xywh: (..., 4), image pixels.
    """
    size = np.asarray(bbox_xywh, np.float64)[..., 2:]
    aspect = input_size_hw[1] / input_size_hw[0]
    width = np.maximum(size[..., 0], size[..., 1] * aspect)
    return padding * np.stack([width, width / aspect], axis=-1)


def box_to_crop(bbox_xywh: ArrayLike, input_size_hw: SizeHW, padding: float = PADDING) -> Affine:
    """Return image_to_crop (..., 2, 3) of the plain, upright crop of a box.

    bbox_xywh: (..., 4), image pixels, width and height > 0. The box grows about its centre to the
        input's aspect and by ``padding``, and then fills the crop.
    """
    box = np.asarray(bbox_xywh, np.float64)
    centre = box[..., :2] + box[..., 2:] / 2
    return view_to_crop(
        centre,
        padded_box_size(box, input_size_hw, padding),
        np.zeros(box.shape[:-1]),
        input_size_hw,
    )


def view_to_crop(
    centre: NDArray[np.float64],
    size_wh: NDArray[np.float64],
    rotation: NDArray[np.float64],
    input_size_hw: SizeHW,
) -> Affine:
    """Return image_to_crop (..., 2, 3) of a rotated box.

    centre: (..., 2) as (x, y), image pixels; it maps to (W/2, H/2) of the crop.
    size_wh: (..., 2), image pixels, at the input's aspect; width maps to the crop's width.
    rotation: (...), radians; the content turns counter-clockwise on the screen.
    """
    height, width = input_size_hw
    scale = width / size_wh[..., 0]
    cosine, sine = scale * np.cos(rotation), scale * np.sin(rotation)
    linear = np.stack(
        [np.stack([cosine, sine], axis=-1), np.stack([-sine, cosine], axis=-1)], axis=-2
    )
    target = np.array([width / 2, height / 2])[:, None]
    return np.concatenate([linear, target - linear @ centre[..., :, None]], axis=-1)
