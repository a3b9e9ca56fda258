"""A drawn person's head: an ellipsoid on which hair, eyes and mouth turn with it."""

import numpy as np

from pipeline.drawn.canvas import Canvas, Floats, Light, ellipsoid_surface, paint_ellipse
from pipeline.drawn.parts import PART_STRIDE, Figure, Part
from pipeline.drawn.skeleton import FACE_DIRECTIONS, Joint

WHITE: Floats = np.full(3, 0.95, np.float32)
BLACK: Floats = np.full(3, 0.06, np.float32)


def paint_head(canvas: Canvas, figure: Figure, light: Light, person: int) -> None:
    """Paint ears, skull, nose and hair of a figure, far parts first."""
    rotation, clothes = figure.body.head_rotation, figure.clothes
    facing = FACE_DIRECTIONS @ rotation[2]
    skin = clothes.skin.colour
    near_ears = [side for side in (0, 1) if facing[3 + side] > 0]
    for side in {0, 1}.difference(near_ears):
        _paint_ear(canvas, figure, light, person, side)
    if facing[0] <= 0:
        _paint_bump(canvas, figure, 0, (0.17, 0.2), skin * 0.9, light, _label(person, Part.HEAD))
    _paint_skull(canvas, figure, light, person)
    if facing[0] > 0:
        _paint_bump(canvas, figure, 0, (0.15, 0.19), skin * 0.82, light, _label(person, Part.HEAD))
    for side in near_ears:
        _paint_ear(canvas, figure, light, person, side)


def _label(person: int, part: Part) -> int:
    return PART_STRIDE * person + part


def _paint_ear(canvas: Canvas, figure: Figure, light: Light, person: int, side: int) -> None:
    label = _label(person, Part(Part.LEFT_EAR + side))
    colour = figure.clothes.skin.colour * 0.88
    _paint_bump(canvas, figure, Joint.LEFT_EAR + side, (0.2, 0.27), colour, light, label)


def _paint_bump(
    canvas: Canvas,
    figure: Figure,
    joint: int,
    size: tuple[float, float],
    colour: Floats,
    light: Light,
    label: int,
) -> None:
    """Paint a small ellipse, size (across, up) in head widths, upright in the head's axes."""
    unit = figure.stature * figure.body.proportions.head_radii[0]
    up = figure.body.head_rotation[:2, 1]
    radii = np.array(size) * unit
    covariance = np.eye(2) * radii[0] ** 2 + np.outer(up, up) * (radii[1] ** 2 - radii[0] ** 2)
    paint_ellipse(canvas, figure.joints[joint, :2], covariance, colour, light, label)


def _paint_skull(canvas: Canvas, figure: Figure, light: Light, person: int) -> None:
    """Paint the head as a true ellipsoid: hair, eyes and mouth lie on it and turn with it."""
    rotation, clothes = figure.body.head_rotation, figure.clothes
    axes = rotation * figure.body.proportions.head_radii * figure.stature
    full = axes @ axes.T
    surface = ellipsoid_surface(canvas, figure.joints[Joint.HEAD, :2], full[:2, :2])
    if surface is None:
        return
    patch, x, y, height, cover = surface
    # Rows of the Cholesky factor map the whitened half sphere onto the ellipsoid's near side.
    points = np.stack([x, y, height], axis=-1) @ np.linalg.cholesky(full).T.astype(np.float32)
    sphere = points @ np.linalg.inv(axes).T.astype(np.float32)
    pixel = 1.0 / (figure.stature * figure.body.proportions.head_radii[0])
    colours = np.broadcast_to(clothes.skin.colour, sphere.shape)
    crown = -0.85 * sphere[..., 1] - 0.55 * sphere[..., 2] - clothes.hairline
    colours = _decal(colours, crown / pixel + 0.5, clothes.hair)
    if rotation[2, 2] > -0.5:
        mouth = np.hypot(0.3 * sphere[..., 0], sphere[..., 1] - 0.58) / pixel
        near_front = np.where(sphere[..., 2] > 0, mouth, 9)
        colours = _decal(colours, 0.1 / pixel - near_front, clothes.skin.colour * 0.5)
        for eye in FACE_DIRECTIONS[1:3].astype(np.float32):
            distance = np.linalg.norm((sphere - eye) * [0.85, 1, 0.85], axis=-1) / pixel
            colours = _decal(colours, 0.2 / pixel + 0.5 - distance, WHITE)
            colours = _decal(colours, 0.12 / pixel + 0.5 - distance, BLACK)
    lit = x * light.direction[0] + y * light.direction[1] + height * light.direction[2]
    shade = light.ambient + (1 - light.ambient) * np.maximum(lit, 0)
    canvas.blend(patch, cover, shade[..., None] * colours, _label(person, Part.HEAD))


def _decal(colours: Floats, cover: Floats, colour: Floats) -> Floats:
    return np.asarray(colours + np.clip(cover, 0, 1)[..., None] * (colour - colours), np.float32)
