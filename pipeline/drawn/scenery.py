"""Everything in a drawn image but people: background, distractors, occluders, the camera."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.drawn.canvas import Canvas, Covering, Floats, Light, paint_capsules, paint_ellipse
from pipeline.drawn.clothes import sample_colour, sample_material, sample_skin


def sample_light(rng: np.random.Generator) -> Light:
    """Draw the direction of the light, and the share of ambient light."""
    sideways, downwards = rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.3)
    direction = np.array([sideways, downwards, 1.0])
    direction /= np.linalg.norm(direction)
    ambient, outline = float(rng.uniform(0.35, 0.7)), float(rng.uniform(0, 0.55))
    return Light(direction.astype(np.float32), ambient, outline)


def draw_background(rng: np.random.Generator, size_hw: tuple[int, int]) -> Floats:
    """Draw gradients, clouds, shapes and lines. Returns (H, W, 3) in [0, 1]."""
    height, width = size_hw
    coarse: Floats = np.stack([sample_colour(rng) for _ in range(4)]).reshape(2, 2, 3)
    # Each octave is enlarged from the one before, so that only the last touches every pixel.
    for cells in (4, 11, 40):
        smooth = cv2.resize(coarse, (cells, cells), interpolation=cv2.INTER_LINEAR)
        grey = rng.normal(0, rng.uniform(0.02, 0.08), (cells, cells, 1))
        tint = rng.normal(0, rng.uniform(0.01, 0.06), (cells, cells, 3))
        coarse = (smooth + grey + tint).astype(np.float32)
    pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    image = np.clip(pixels * 255, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(6, 36))):
        _draw_shape(rng, image)
    for _ in range(int(rng.integers(2, 22))):
        start, end = (_point(rng, size_hw, 16) for _ in range(2))
        thickness = int(rng.integers(1, 4))
        cv2.line(image, start, end, _colour(rng), thickness, cv2.LINE_AA, 4)
    return image.astype(np.float32) / np.float32(255)


def sample_grain(rng: np.random.Generator, size_hw: tuple[int, int]) -> Floats:
    """Draw the roughness of surfaces. Returns (H, W), factors about 1."""
    height, width = size_hw
    small = rng.normal(1, rng.uniform(0.02, 0.12), (height // 4, width // 4)).astype(np.float32)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)


def paint_distractors(canvas: Canvas, rng: np.random.Generator, light: Light) -> None:
    """Paint bars and balls that are shaded and coloured like limbs and heads, label 0."""
    size_hw = canvas.pixels.shape[:2]
    for _ in range(int(rng.integers(2, 9))):
        start = rng.uniform(0, 1, 2) * size_hw[::-1]
        _paint_bar(canvas, rng, light, start, float(rng.uniform(4, 11)), rng.uniform(25, 110))
    for _ in range(int(rng.integers(0, 4))):
        radii = rng.uniform(7, 20) * rng.uniform(0.8, 1.25, 2)
        centre = rng.uniform(0, 1, 2) * size_hw[::-1]
        paint_ellipse(canvas, centre, np.diag(radii**2), sample_skin(rng), light, 0)


def paint_occluder(
    canvas: Canvas, rng: np.random.Generator, light: Light, centre: NDArray[np.float64]
) -> None:
    """Paint one thing that stands in front of people, near centre (2,), label 0."""
    kind = rng.random()
    if kind < 0.5:
        radius = float(rng.uniform(4, 16))
        _paint_bar(canvas, rng, light, centre, radius, rng.uniform(40, 260))
    elif kind < 0.75:
        radii = rng.uniform(12, 34, 2)
        paint_ellipse(canvas, centre, np.diag(radii**2), sample_colour(rng), light, 0)
    else:
        _paint_box(canvas, rng, centre)


def finish_image(rng: np.random.Generator, pixels: Floats) -> NDArray[np.uint8]:
    """Turn pixels (H, W, 3) in [0, 1] into a photograph: blur, exposure, colour cast, noise."""
    if rng.random() < 0.6:
        sigma = float(rng.uniform(0.3, 1.1))
        pixels = cv2.GaussianBlur(pixels, (0, 0), sigma).astype(np.float32)
    cast = rng.uniform(0.75, 1.2) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    lift, noise = np.float32(rng.uniform(-0.04, 0.1)), np.float32(rng.uniform(0.004, 0.04))
    grain = rng.standard_normal((*pixels.shape[:2], 1), np.float32)
    exposed = pixels * (cast * 255).astype(np.float32)
    exposed += (lift + noise * grain) * np.float32(255)
    return np.clip(np.rint(exposed, out=exposed), 0, 255, out=exposed).astype(np.uint8)


def _paint_bar(
    canvas: Canvas,
    rng: np.random.Generator,
    light: Light,
    start: NDArray[np.float64],
    radius: float,
    length: float,
) -> None:
    angle = rng.uniform(0, 2 * np.pi)
    reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    row = np.array([*(start - reach), *(start + reach), radius, radius * rng.uniform(0.6, 1.0)])
    cloth, other = sample_material(rng, 150.0, plain=0.6), sample_material(rng, 150.0)
    if rng.random() < 0.4:
        skin = sample_skin(rng)
        other = type(other)(skin, skin)
    covering = Covering(cloth, other, float(rng.uniform(0, 1.6)))
    paint_capsules(canvas, row[None], covering, light, 0)


def _paint_box(canvas: Canvas, rng: np.random.Generator, centre: NDArray[np.float64]) -> None:
    size = rng.uniform(20, 75, 2)
    patch = canvas.patch(centre - size / 2, centre + size / 2)
    if patch is None:
        return
    material = sample_material(rng, 200.0)
    along = np.broadcast_to(patch.y, (patch.y.shape[0], patch.x.shape[1]))
    colours = material.paint(along, np.broadcast_to(patch.x, along.shape))
    canvas.blend(patch, np.ones(along.shape, np.float32), colours, 0)


def _draw_shape(rng: np.random.Generator, image: NDArray[np.uint8]) -> None:
    size_hw = (image.shape[0], image.shape[1])
    centre, reach = np.array(_point(rng, size_hw, 1)), rng.uniform(8, 90)
    kind, colour = rng.random(), _colour(rng)
    thickness = -1 if rng.random() < 0.75 else int(rng.integers(1, 6))
    if kind < 0.4:
        corners = int(rng.integers(3, 7))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        points = centre + reach * rng.uniform(0.5, 1, (corners, 1)) * ring
        outline = [np.rint(points * 16).astype(np.int32)]
        if thickness < 0:
            cv2.fillPoly(image, outline, colour, cv2.LINE_AA, 4)
        else:
            cv2.polylines(image, outline, True, colour, thickness, cv2.LINE_AA, 4)
    elif kind < 0.7:
        axes = np.rint(reach * rng.uniform(0.3, 1, 2)).astype(int) + 1
        angle = float(rng.uniform(0, 180))
        middle = (int(centre[0]), int(centre[1]))
        wide, high = int(axes[0]), int(axes[1])
        cv2.ellipse(image, middle, (wide, high), angle, 0, 360, colour, thickness, cv2.LINE_AA)
    else:
        half = np.rint(reach * rng.uniform(0.2, 1, 2)).astype(int)
        low, high_corner = centre - half, centre + half
        corner, opposite = (int(low[0]), int(low[1])), (int(high_corner[0]), int(high_corner[1]))
        cv2.rectangle(image, corner, opposite, colour, thickness)


def _point(rng: np.random.Generator, size_hw: tuple[int, int], scale: int) -> tuple[int, int]:
    x, y = rng.uniform(-0.1, 1.1, 2) * size_hw[::-1] * scale
    return int(x), int(y)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value * 255) for value in sample_colour(rng))
    return red, green, blue
