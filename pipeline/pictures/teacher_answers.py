"""A teacher's keypoints and heatmaps of some people, from a store or predicted now."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import (
    Affine,
    SizeHW,
    apply,
    box_to_crop,
    compose,
    crop_to_heatmap,
    invert,
)
from pipeline.pictures.poses import Picture
from pipeline.pictures.shown_people import teacher_title
from pipeline.prediction.estimators import TeacherEstimator
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.heatmap_codec import dequantise_heatmaps

PLAIN_VIEW = 0


@dataclass(frozen=True)
class TeacherAnswers:
    """What a teacher predicted of the plain crops of n people."""

    name: str
    keypoints: NDArray[np.float64]  # (n, K, 2) as (x, y), image pixels
    heatmaps: NDArray[np.floating[Any]]  # (n, K, Hh, Wh)
    confidences: NDArray[np.float32]  # (n, K), peak heat
    image_to_heatmap: Affine  # (n, 2, 3)
    crop_to_heatmap: Affine  # (2, 3), of the teacher's own crops
    input_size_hw: SizeHW


def stored_answers(store: TeacherStore, rows: NDArray[np.int64]) -> TeacherAnswers:
    """Read what a store holds of the plain view of these people.

    Raises:
        StoreError: a view is missing, torn or altered.
    """
    stored = store.read(rows, np.full(len(rows), PLAIN_VIEW))
    affine = crop_to_heatmap(store.heatmap_frame, store.input_size_hw, store.heatmap_size_hw)
    return TeacherAnswers(
        teacher_title(store),
        apply(invert(stored.image_to_crop), stored.keypoints),
        dequantise_heatmaps(stored.heatmaps, stored.scale),
        stored.confidence,
        compose(affine, stored.image_to_crop),
        affine,
        store.input_size_hw,
    )


def predicted_answers(
    estimator: TeacherEstimator,
    name: str,
    padding: float,
    images: list[Picture],
    bbox_xywh: NDArray[np.float64],
) -> TeacherAnswers:
    """Predict people with a teacher.

    images: the image of each person, (H, W, 3) uint8, RGB.
    bbox_xywh: (n, 4), image pixels.
    """
    teacher = estimator.teacher
    image_to_crop = box_to_crop(bbox_xywh, teacher.input_size_hw, padding)
    pairs = zip(images, image_to_crop, strict=True)
    crops = [warp_crop(image, affine, teacher.input_size_hw) for image, affine in pairs]
    output = teacher.predict_and_decode(np.stack(crops), estimator.flip_indices)
    return TeacherAnswers(
        name,
        apply(invert(image_to_crop), output.keypoints),
        output.heatmaps,
        output.confidences,
        compose(teacher.crop_to_heatmap, image_to_crop),
        teacher.crop_to_heatmap,
        teacher.input_size_hw,
    )
