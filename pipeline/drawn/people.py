"""Drawn people: images and COCO person keypoints from a seed, without data or download.

Image ``index`` of a seed is drawn from its own counter-based generator, so any image can be drawn
alone, in any order, on any machine, and is the same.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.drawn.canvas import Canvas
from pipeline.drawn.clothes import sample_clothes
from pipeline.drawn.figure import paint_figure
from pipeline.drawn.parts import PART_STRIDE, Figure, label_keypoints, place_figure
from pipeline.drawn.scenery import (
    draw_background,
    finish_image,
    paint_distractors,
    paint_occluder,
    sample_grain,
    sample_light,
)
from pipeline.drawn.skeleton import NUM_KEYPOINTS, View, sample_body
from pipeline.errors import ConfigError

CATEGORY_ID = 1
JPEG_QUALITY = 92
MIN_KEYPOINTS = 4
"""Least number of visible keypoints; a person with fewer has a box and no keypoints, as in COCO."""
KEYPOINT_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
COCO_EDGES = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9),
    (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip
"""Edges of COCO's person category, keypoints counted from 1."""


@dataclass(frozen=True)
class DrawnPerson:
    """A person's annotation, image pixels."""

    keypoints: NDArray[np.float64]  # (17, 3) as (x, y, visibility); not labelled: (0, 0, 0)
    bbox_xywh: tuple[float, float, float, float]  # about the pixels that show
    area: float  # the number of pixels that show
    view: View

    @property
    def num_keypoints(self) -> int:
        return int((self.keypoints[:, 2] > 0).sum())


@dataclass(frozen=True)
class DrawnScene:
    """An image and the people in it."""

    image: NDArray[np.uint8]  # (H, W, 3), RGB
    annotations: list[DrawnPerson]


def draw_scene(seed: int, index: int) -> DrawnScene:
    """Draw image ``index`` of a seed; it depends on nothing else.

    Raises:
        ConfigError: the seed or the index is negative.
    """
    if seed < 0 or index < 0:
        raise ConfigError(
            f"drawn people need a seed and an image index of at least 0, got seed {seed} "
            f"and index {index}: choose others"
        )
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))
    size_hw = (int(rng.integers(240, 361)), int(rng.integers(240, 361)))
    light = sample_light(rng)
    canvas = Canvas(draw_background(rng, size_hw), sample_grain(rng, size_hw))
    paint_distractors(canvas, rng, light)
    figures = _sample_figures(rng, size_hw)
    for person, figure in enumerate(figures, start=1):
        paint_figure(canvas, figure, light, person)
    for _ in range(int(rng.choice((0, 0, 1, 1, 2, 3)))):
        figure = figures[int(rng.integers(len(figures)))]
        joint = figure.joints[int(rng.integers(5, NUM_KEYPOINTS)), :2]
        paint_occluder(canvas, rng, light, joint + rng.normal(0, 12, 2))
    image = finish_image(rng, canvas.pixels)
    people = (_annotate(figure, canvas.labels, i) for i, figure in enumerate(figures, start=1))
    return DrawnScene(image, [person for person in people if person is not None])


def write_drawn_people(folder: Path, num_images: int, seed: int, first_index: int = 0) -> Path:
    """Write images and COCO annotations, the annotations last, and return their path.

    The images are ``first_index`` to ``first_index + num_images - 1`` of the seed, in
    ``folder/images``; a file name and an image id are the index.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    path = folder / "annotations.json"
    path.unlink(missing_ok=True)  # an interrupted run must not leave it beside other images
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for index in range(first_index, first_index + num_images):
        scene = draw_scene(seed, index)
        name = f"{index:06d}.jpg"
        height, width = scene.image.shape[:2]
        Image.fromarray(scene.image).save(folder / "images" / name, quality=JPEG_QUALITY)
        images.append({"id": index, "file_name": name, "height": height, "width": width})
        for person in scene.annotations:
            annotations.append(_coco_annotation(person, len(annotations) + 1, index))
    document = {"images": images, "annotations": annotations, "categories": [_coco_category()]}
    temporary = path.with_suffix(".json.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(document))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return path


def _sample_figures(rng: np.random.Generator, size_hw: tuple[int, int]) -> list[Figure]:
    """Draw 1 to 4 people, the smaller ones (further away) first, not hiding each other much."""
    num_people = int(rng.choice((1, 2, 3, 4), p=(0.45, 0.3, 0.17, 0.08)))
    figures: list[Figure] = []
    boxes: list[NDArray[np.float64]] = []
    for _ in range(num_people):
        for _ in range(6):
            figure = _sample_figure(rng, size_hw, crowd=num_people)
            low, high = figure.joints[:, :2].min(axis=0), figure.joints[:, :2].max(axis=0)
            box = np.array([low, high])
            if all(_overlap(box, other) < 0.35 for other in boxes):
                figures.append(figure)
                boxes.append(box)
                break
    return sorted(figures, key=lambda figure: figure.stature)


def _sample_figure(rng: np.random.Generator, size_hw: tuple[int, int], crowd: int) -> Figure:
    largest = {1: 290, 2: 250, 3: 220}.get(crowd, 200)
    stature = float(rng.uniform(120, largest))
    body = sample_body(rng)
    low, high = body.joints[:, :2].min(axis=0), body.joints[:, :2].max(axis=0)
    # Mostly whole people; some cut by the edge, as far as where their middle still shows.
    margin = 0.55 if rng.random() < 0.72 else 0.15
    size = np.array(size_hw[::-1])
    room = np.minimum(margin * stature * (high - low), 0.48 * size)
    middle = rng.uniform(room, size - room)
    origin = middle - stature * (low + high) / 2
    return place_figure(body, sample_clothes(rng, stature), stature, origin)


def _overlap(box: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the shared area over the smaller box's; boxes (2, 2) as low and high corners."""
    shared = np.minimum(box[1], other[1]) - np.maximum(box[0], other[0])
    smaller = min(np.prod(box[1] - box[0]), np.prod(other[1] - other[0]))
    return float(np.prod(np.maximum(shared, 0)) / max(smaller, 1.0))


def _annotate(figure: Figure, labels: NDArray[np.int32], person: int) -> DrawnPerson | None:
    """Return a figure's annotation once everything is painted; None if none of it shows."""
    mask = labels // PART_STRIDE == person
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = float(columns[0]), float(rows[0])
    box = (left, top, float(columns[-1] + 1) - left, float(rows[-1] + 1) - top)
    keypoints = label_keypoints(figure, labels, person)
    if (keypoints[:, 2] == 2).sum() < MIN_KEYPOINTS:
        keypoints[:] = 0
    return DrawnPerson(keypoints, box, float(mask.sum()), figure.body.view)


def _coco_annotation(person: DrawnPerson, annotation_id: int, image_id: int) -> dict[str, object]:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": CATEGORY_ID,
        "bbox": list(person.bbox_xywh),
        "area": person.area,
        "iscrowd": 0,
        "keypoints": person.keypoints.round(3).ravel().tolist(),
        "num_keypoints": person.num_keypoints,
    }


def _coco_category() -> dict[str, object]:
    return {
        "id": CATEGORY_ID,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(KEYPOINT_NAMES),
        "skeleton": [list(edge) for edge in COCO_EDGES],
    }
