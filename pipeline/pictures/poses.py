"""Pictures that a person can check: poses and heat drawn on a crop.

Pure functions on arrays; a picture is (H, W, 3) uint8 RGB throughout. The person's left is orange,
the right is blue and the middle green in every picture, limbs, joints and heat alike, so that
swapped sides show at a glance (the pair is also told apart by colour-blind readers).
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.coco.people import Skeleton
from pipeline.frames.geometry import Affine
from pipeline.storage.files import publish

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

LEFT_COLOUR: Colour = (255, 145, 20)
RIGHT_COLOUR: Colour = (70, 165, 255)
CENTRE_COLOUR: Colour = (95, 225, 95)
OUTLINE_COLOUR: Colour = (20, 20, 20)

SIDES = (("the person's left", LEFT_COLOUR), ("right", RIGHT_COLOUR), ("middle", CENTRE_COLOUR))
"""Explanation of the colours, for a legend."""
HEAT_COLOUR: Colour = (255, 225, 60)

_DIMMING = 0.55
"""Factor on a crop's brightness below overlaid heat."""
_JPEG_QUALITY = 92
_SHIFT = 4
"""Fractional bits of the coordinates in OpenCV's drawing functions."""
_FARTHEST = 1e5
"""Largest coordinate; larger ones are clipped, so that OpenCV's fixed point cannot overflow."""


def keypoint_colours(skeleton: Skeleton) -> NDArray[np.uint8]:
    """Return (K, 3) uint8 RGB: the colour of the side that each keypoint is on."""
    colours = []
    for keypoint, mirrored in enumerate(skeleton.flip_indices):
        name = skeleton.keypoint_names[keypoint]
        if keypoint == mirrored:
            colours.append(CENTRE_COLOUR)
        else:
            is_left = name.startswith("left_") or name.endswith("_left")
            colours.append(LEFT_COLOUR if is_left else RIGHT_COLOUR)
    return np.array(colours, np.uint8).reshape(-1, 3)


def draw_pose(
    crop: Picture,
    keypoints: ArrayLike,
    visible: ArrayLike,
    skeleton: Skeleton,
    height: float | None = None,
) -> Picture:
    """Draw limbs and a dot at every joint; widths are proportional to the person's height.

    crop: (H, W, 3) uint8, RGB; not changed.
    keypoints: (K, 2) as (x, y), crop pixels; may lie outside.
    visible: (K,) bool; keypoints that are not visible or not finite, and their limbs, are not
        drawn.
    height: pixels of the person; None: the picture's, as a crop shows one person.
    """
    points = np.asarray(keypoints, np.float64)
    is_drawn = _is_drawn(points, visible)
    colours = keypoint_colours(skeleton)
    picture = np.ascontiguousarray(crop).copy()
    height = picture.shape[0] if height is None else height
    thickness, radius = _line_width(height), _dot_radius(height)
    limbs = [edge for edge in skeleton.edges if is_drawn[list(edge)].all()]
    for width, is_outline in ((2 * thickness, True), (thickness, False)):
        for start, end in limbs:
            colour = OUTLINE_COLOUR if is_outline else _limb_colour(colours[start], colours[end])
            ends = _fixed(points[start]), _fixed(points[end])
            cv2.line(picture, *ends, colour, width, cv2.LINE_AA, _SHIFT)
    for keypoint in np.flatnonzero(is_drawn):
        _disc(picture, points[keypoint], 1.4 * radius, OUTLINE_COLOUR)
        _disc(picture, points[keypoint], radius, _colour(colours[keypoint]))
    return picture


def ring_keypoints(
    crop: Picture, keypoints: ArrayLike, visible: ArrayLike, skeleton: Skeleton
) -> Picture:
    """Draw a ring around every keypoint; a dot that ``draw_pose`` adds later fits inside it.

    crop: (H, W, 3) uint8, RGB; not changed.
    keypoints: (K, 2) as (x, y), crop pixels; may lie outside.
    visible: (K,) bool; keypoints that are not visible or not finite are not drawn.
    """
    points = np.asarray(keypoints, np.float64)
    picture = np.ascontiguousarray(crop).copy()
    colours = keypoint_colours(skeleton)
    radius, thickness = (
        round(2.6 * _dot_radius(picture.shape[0]) * 2**_SHIFT),
        _line_width(picture.shape[0]),
    )
    for keypoint in np.flatnonzero(_is_drawn(points, visible)):
        centre = _fixed(points[keypoint])
        for width, colour in ((2 * thickness, (255, 255, 255)), (thickness, None)):
            drawn = _colour(colours[keypoint]) if colour is None else colour
            cv2.circle(picture, centre, radius, drawn, width, cv2.LINE_AA, _SHIFT)
    return picture


def overlay_heatmaps(
    crop: Picture,
    heatmaps: NDArray[np.floating],
    crop_to_heatmap: Affine,
    colours: ArrayLike = HEAT_COLOUR,
) -> Picture:
    """Lay the heat of all keypoints over a dimmed crop, mapped by the heatmap's affine.

    crop: (H, W, 3) uint8, RGB; not changed.
    heatmaps: (K, Hh, Wh) in [0, 1]; heat outside that range is clipped.
    crop_to_heatmap: (2, 3), from the pixels of this picture.
    colours: (K, 3) or (3,) uint8 RGB, one per keypoint or one for all.
    """
    height, width = crop.shape[:2]
    colours = np.broadcast_to(np.asarray(colours, np.float32), (len(heatmaps), 3))
    strongest = np.zeros((height, width), np.float32)
    weight = np.zeros((height, width, 1), np.float32)
    mixed = np.zeros((height, width, 3), np.float32)
    for heatmap, colour in zip(heatmaps, colours, strict=True):
        # The affine is the inverse map already: it maps a pixel to its place in the heatmap. Cubic
        # interpolation, because the peak of a linear surface always lies on a cell.
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        source = np.ascontiguousarray(heatmap, np.float32)
        heat = np.clip(cv2.warpAffine(source, crop_to_heatmap, (width, height), flags=flags), 0, 1)
        strongest = np.maximum(strongest, heat)
        weight += heat[..., None] ** 2
        mixed += heat[..., None] ** 2 * colour
    mixed /= np.maximum(weight, np.float32(1e-12))
    opacity = strongest[..., None]
    picture = _DIMMING * (1 - opacity) * crop + opacity * mixed
    return np.asarray(np.rint(picture), np.uint8)


def write_jpeg(path: Path, image: Picture) -> None:
    """Write an image (H, W, 3) uint8, RGB, as a JPEG file; a file is never half written."""
    publish(path, encode_jpeg(image, _JPEG_QUALITY))


def encode_jpeg(image: Picture, quality: int) -> bytes:
    """Return an image (H, W, 3) uint8, RGB, as the bytes of a JPEG file."""
    settings = (cv2.IMWRITE_JPEG_QUALITY, quality)
    written, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), settings)
    assert written
    return data.tobytes()


def write_png(path: Path, image: Picture) -> None:
    """Write an image (H, W, 3) uint8, RGB, as a PNG file; a file is never half written."""
    written, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    assert written
    publish(path, data.tobytes())


def _is_drawn(points: NDArray[np.float64], visible: ArrayLike) -> NDArray[np.bool_]:
    return np.asarray(np.asarray(visible, bool) & np.isfinite(points).all(axis=-1))


def _limb_colour(start: NDArray[np.uint8], end: NDArray[np.uint8]) -> Colour:
    """Return the colour of the one side that a limb's ends are on, else the middle's."""
    ends = {_colour(start), _colour(end)} - {CENTRE_COLOUR}
    return ends.pop() if len(ends) == 1 else CENTRE_COLOUR


def _colour(colour: NDArray[np.uint8]) -> Colour:
    red, green, blue = colour.tolist()
    return red, green, blue


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    """Return a point in OpenCV's fixed point; a pixel's centre is a whole number there too."""
    x, y = np.rint(np.clip(point, -_FARTHEST, _FARTHEST) * 2**_SHIFT).astype(int).tolist()
    return x, y


def _disc(picture: Picture, centre: NDArray[np.float64], radius: float, colour: Colour) -> None:
    size = round(radius * 2**_SHIFT)
    cv2.circle(picture, _fixed(centre), size, colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _line_width(height: float) -> int:
    return max(1, round(height / 160))


def _dot_radius(height: float) -> float:
    return max(1.5, height / 110)
