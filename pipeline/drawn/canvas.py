"""A canvas with exact sub-pixel edges: shaded capsules and ellipsoids, and each pixel's label.

Shapes are distance fields evaluated at pixel centres (integer coordinates), so a joint is drawn
where it is annotated. Lengths are image pixels, colours are RGB in [0, 1], and directions have
x to the right, y down and z towards the camera.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Pattern = Literal["plain", "bands", "stripes", "checks"]


@dataclass(frozen=True)
class Material:
    """A colour, or two in a pattern."""

    colour: Floats  # (3,)
    second_colour: Floats  # (3,)
    pattern: Pattern = "plain"
    period: float = 8.0  # pixels

    def paint(self, along: Floats, across: Floats) -> Floats:
        """Return the colours at a surface's coordinates.

        along, across: (h, w) in pixels along and across the shape. Returns (h, w, 3).
        """
        if self.pattern == "plain":
            return np.broadcast_to(self.colour, (*along.shape, 3))
        turn = np.float32(2 * np.pi / self.period)
        if self.pattern == "bands":
            wave = np.sin(along * turn)
        elif self.pattern == "stripes":
            wave = np.sin(across * turn)
        else:
            wave = np.sin(along * turn) * np.sin(across * turn)
        share = np.clip(0.5 + 1.5 * wave, 0, 1)[..., None]
        return np.asarray(self.colour + share * (self.second_colour - self.colour))


@dataclass(frozen=True)
class Covering:
    """Cloth on the first ``fraction`` of a limb, and bare skin on the rest."""

    cloth: Material
    bare: Material
    fraction: float


@dataclass(frozen=True)
class Light:
    """A distant lamp and ambient light."""

    direction: Floats  # (3,), unit length, towards the lamp
    ambient: float
    outline: float
    """Darkening of a shape's rim, 0 to 1: it separates limbs from a body of the same colour."""


@dataclass(frozen=True)
class Patch:
    """The part of a canvas that a shape can touch, and the coordinates of its pixels."""

    rows: slice
    columns: slice
    x: Floats  # (1, w)
    y: Floats  # (h, 1)


class Canvas:
    """Pixels, and for each the label of the shape that shows there."""

    def __init__(self, pixels: Floats, grain: Floats) -> None:
        """Start from a background.

        pixels: (H, W, 3) in [0, 1], painted in place. grain: (H, W), factors that roughen shapes.
        """
        self.pixels = pixels
        self.grain = grain
        self.labels = np.zeros(pixels.shape[:2], np.int32)

    def patch(self, low: NDArray[np.floating], high: NDArray[np.floating]) -> Patch | None:
        """Return the pixels inside corners low and high, (2,) as (x, y); None outside the image."""
        height, width = self.pixels.shape[0], self.pixels.shape[1]
        left, top = max(int(low[0]) - 1, 0), max(int(low[1]) - 1, 0)
        right, bottom = min(int(high[0]) + 2, width), min(int(high[1]) + 2, height)
        if left >= right or top >= bottom:
            return None
        x = np.arange(left, right, dtype=np.float32)[None]
        y = np.arange(top, bottom, dtype=np.float32)[:, None]
        return Patch(slice(top, bottom), slice(left, right), x, y)

    def blend(self, patch: Patch, cover: Floats, colours: Floats, label: int) -> None:
        """Lay colours (h, w, 3) over the patch where cover (h, w) is above 0."""
        view = self.pixels[patch.rows, patch.columns]
        rough = colours * self.grain[patch.rows, patch.columns, None]
        view += cover[..., None] * (rough - view)
        self.labels[patch.rows, patch.columns][cover > 0.5] = label


def paint_capsules(
    canvas: Canvas,
    capsules: NDArray[np.floating],
    covering: Covering,
    light: Light,
    label: int,
) -> None:
    """Paint the union of tapered capsules, shaded as one round body about the first one's axis.

    capsules: (n, 6) as (x0, y0, x1, y1, radius0, radius1), image pixels.
    """
    reach = capsules[:, 4:].max()
    ends = capsules[:, :4].reshape(-1, 2)
    patch = canvas.patch(ends.min(axis=0) - reach, ends.max(axis=0) + reach)
    if patch is None:
        return
    distance, _, _ = _capsule_field(patch, capsules[0])
    half_width = float(capsules[0, 4:].mean())
    for capsule in capsules[1:]:
        distance = np.minimum(distance, _capsule_field(patch, capsule)[0])
        half_width = max(half_width, _side_reach(capsules[0], capsule))
    _, share, across = _capsule_field(patch, capsules[0])
    x0, y0, x1, y1 = (float(value) for value in capsules[0, :4])
    length = max(float(np.hypot(x1 - x0, y1 - y0)), 1e-3)
    bulge = np.clip(across / np.float32(half_width), -1, 1)
    facing = np.sqrt(1 - bulge * bulge)
    side_light = (-(y1 - y0) * light.direction[0] + (x1 - x0) * light.direction[1]) / length
    lit = bulge * np.float32(side_light) + facing * light.direction[2]
    shade = _shade(lit, distance, light)
    along = share * np.float32(length)
    colours = covering.cloth.paint(along, across)
    if covering.fraction < 1:
        edge = np.clip(along - covering.fraction * length + 0.5, 0, 1).astype(np.float32)[..., None]
        colours = colours + edge * (covering.bare.paint(along, across) - colours)
    cover = np.clip(0.5 - distance, 0, 1)
    canvas.blend(patch, cover, colours * shade[..., None], label)


def paint_ellipse(
    canvas: Canvas,
    centre: NDArray[np.floating],
    covariance: NDArray[np.floating],
    colour: Floats,
    light: Light,
    label: int,
) -> None:
    """Paint a shaded ellipse p' covariance^-1 p <= 1 about centre (2,); covariance: (2, 2)."""
    surface = ellipsoid_surface(canvas, centre, covariance)
    if surface is None:
        return
    patch, x, y, height, cover = surface
    lit = x * light.direction[0] + y * light.direction[1] + height * light.direction[2]
    shade = light.ambient + (1 - light.ambient) * np.maximum(lit, 0)
    canvas.blend(patch, cover, shade[..., None] * colour, label)


def ellipsoid_surface(
    canvas: Canvas, centre: NDArray[np.floating], covariance: NDArray[np.floating]
) -> tuple[Patch, Floats, Floats, Floats, Floats] | None:
    """Return patch, whitened x and y, height sqrt(1 - x^2 - y^2) and cover of an ellipse.

    Return None for an ellipse outside the image.
    """
    reach = np.sqrt(np.diag(covariance)) + 1
    patch = canvas.patch(centre - reach, centre + reach)
    if patch is None:
        return None
    # The inverse of the lower Cholesky factor turns the ellipse into the unit disc.
    whiten = np.linalg.inv(np.linalg.cholesky(covariance)).astype(np.float32)
    dx, dy = patch.x - np.float32(centre[0]), patch.y - np.float32(centre[1])
    x = np.broadcast_to(whiten[0, 0] * dx, (dy.shape[0], dx.shape[1]))
    y = whiten[1, 0] * dx + whiten[1, 1] * dy
    squared = x * x + y * y
    # First-order distance (F(p) / |grad F|): exact at the rim, where the edge is.
    gradient = np.hypot(whiten[0, 0] * x + whiten[1, 0] * y, whiten[1, 1] * y)
    distance = (squared - 1) / np.maximum(2 * gradient, 1e-3)
    cover = np.clip(0.5 - distance, 0, 1)
    return patch, x, y, np.sqrt(np.maximum(1 - squared, 0)), cover


def _capsule_field(patch: Patch, capsule: NDArray[np.floating]) -> tuple[Floats, Floats, Floats]:
    """Return the distance to the capsule, the share of its axis in [0, 1], the signed offset."""
    x0, y0, x1, y1, radius0, radius1 = (np.float32(value) for value in capsule)
    axis_x, axis_y = x1 - x0, y1 - y0
    squared = max(axis_x * axis_x + axis_y * axis_y, np.float32(1e-6))
    dx, dy = patch.x - x0, patch.y - y0
    share = np.clip((dx * axis_x + dy * axis_y) / squared, 0, 1)
    distance = np.hypot(dx - share * axis_x, dy - share * axis_y)
    distance -= radius0 + share * (radius1 - radius0)
    across = (dy * axis_x - dx * axis_y) / np.sqrt(squared)
    return distance, share, across


def _side_reach(axis: NDArray[np.floating], capsule: NDArray[np.floating]) -> float:
    """Return how far a capsule reaches sideways from the axis of another."""
    step = axis[2:4] - axis[:2]
    step = step / max(float(np.hypot(*step)), 1e-3)
    offset = (capsule[:4].reshape(2, 2) + capsule[2:4]) / 2 - axis[:2]
    sideways = np.abs(offset @ np.array([-step[1], step[0]])).max()
    return float(sideways + capsule[4:].mean())


def _shade(lit: Floats, distance: Floats, light: Light) -> Floats:
    rim = np.clip(1 + distance / 1.6, 0, 1) * np.float32(light.outline)
    shade = light.ambient + (1 - light.ambient) * np.maximum(lit, 0)
    return np.asarray(shade * (1 - rim), np.float32)
