"""Views of a person: the plain evaluation crop (view 0) and augmented crops (views 1, 2, ...).

A view is one affine image_to_crop, mirror included. It is drawn once, from a counter-based
generator keyed by (seed, instance id, view), so it depends on no other person, order or process;
a teacher store keeps the affine itself, so no random stream matters afterwards.

The recipe is DistilPose's released one (mmpose 0.22's top-down transforms), with one correction: a
fair coin chooses the half of the body, where the released code compares a *normal* variate to 0.5.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People, Skeleton
from pipeline.frames.geometry import (
    Affine,
    SizeHW,
    box_to_crop,
    compose,
    is_mirroring,
    mirror_affine,
    padded_box_size,
    view_to_crop,
)
from pipeline.settings import ViewRecipe

HALF_BODY_PADDING = 1.5
HALF_BODY_MIN_KEYPOINTS = 8
"""A half-body view needs more labelled keypoints than this, as in mmpose."""


def describe_missing_halves(skeleton: Skeleton, recipe: ViewRecipe) -> str | None:
    """Return a note that half-body views are off although the recipe has them; None if they are on.

    Views of people without labelled keypoints have no half bodies whatever the skeleton.
    """
    if skeleton.upper_body or recipe.half_body_probability == 0:
        return None
    return (
        "half-body views are off: these keypoints have no upper and lower body; give both under "
        "people.skeleton in --config"
    )


@dataclass(frozen=True)
class Views:
    """The views of N people: column 0 is the evaluation crop, columns 1.. are augmented."""

    image_to_crop: NDArray[np.float64]  # (N, V, 2, 3)
    is_mirrored: NDArray[np.bool_]  # (N, V)


def draw_views(
    people: People, recipe: ViewRecipe, seed: int, num_views: int, input_size_hw: SizeHW
) -> Views:
    """Draw the evaluation view and ``num_views`` augmented views of every person.

    Returns views with V = num_views + 1, to crops of ``input_size_hw``.
    """
    affines = np.empty((people.num_instances, num_views + 1, 2, 3))
    affines[:, 0] = box_to_crop(people.bbox_xywh, input_size_hw, recipe.padding)
    for row, instance_id in enumerate(people.instance_id.tolist()):
        for view in range(1, num_views + 1):
            affines[row, view] = draw_view(
                recipe,
                seed,
                instance_id,
                view,
                people.bbox_xywh[row],
                people.keypoints[row],
                people.skeleton,
                input_size_hw,
            )
    return Views(affines, is_mirroring(affines))


def draw_view(
    recipe: ViewRecipe,
    seed: int,
    instance_id: int,
    view: int,
    bbox_xywh: NDArray[np.float64],
    keypoints: NDArray[np.float32],
    skeleton: Skeleton,
    input_size_hw: SizeHW,
) -> Affine:
    """Draw one augmented view of one person.

    bbox_xywh: (4,), image pixels.
    keypoints: (K, 3) as (x, y, visibility), image pixels; used only by half-body views.
    Returns image_to_crop (2, 3), mirror included.
    """
    key = hashlib.sha256(f"view {seed} {instance_id} {view}".encode()).digest()[:16]
    random = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    # Every variate is drawn, used or not, so that one setting never changes another's outcome.
    flip, half_body, upper, rotates, shifts, shift_x, shift_y = random.random(7)
    scale_variate, rotation_variate = random.standard_normal(2)

    centre = bbox_xywh[:2] + bbox_xywh[2:] / 2
    if shifts < recipe.shift_probability:
        centre = centre + recipe.shift_factor * bbox_xywh[2:] * (
            2 * np.array([shift_x, shift_y]) - 1
        )
    size_wh = padded_box_size(bbox_xywh, input_size_hw, recipe.padding)
    if half_body < recipe.half_body_probability:
        kept = _half_body_keypoints(keypoints, skeleton, prefers_upper=bool(upper < 0.5))
        if kept is not None:
            centre = kept.mean(axis=0)
            # Aligned keypoints span no area; a tenth of the box keeps the crop from degenerating.
            extent = np.maximum(np.ptp(kept, axis=0), 0.1 * bbox_xywh[2:])
            size_wh = padded_box_size([0, 0, *extent], input_size_hw, HALF_BODY_PADDING)
    size_wh = size_wh * np.clip(
        1 + recipe.scale_factor * scale_variate, 1 - recipe.scale_factor, 1 + recipe.scale_factor
    )
    rotation = 0.0
    if rotates < recipe.rotation_probability:
        limit = 2 * recipe.rotation_degrees
        rotation = np.deg2rad(np.clip(recipe.rotation_degrees * rotation_variate, -limit, limit))
    affine = view_to_crop(centre, size_wh, np.asarray(rotation), input_size_hw)
    if flip < recipe.flip_probability:
        affine = compose(mirror_affine(input_size_hw[1]), affine)
    return affine


def _half_body_keypoints(
    keypoints: NDArray[np.float32], skeleton: Skeleton, prefers_upper: bool
) -> NDArray[np.float64] | None:
    """Return the (J, 2) labelled keypoints of a half; None: neither half has more than two."""
    is_labelled = keypoints[:, 2] > 0
    if not skeleton.upper_body or is_labelled.sum() <= HALF_BODY_MIN_KEYPOINTS:
        return None
    halves = [skeleton.upper_body, skeleton.lower_body]
    for half in halves if prefers_upper else halves[::-1]:
        labelled = [index for index in half if is_labelled[index]]
        if len(labelled) > 2:
            return keypoints[labelled, :2].astype(np.float64)
    return None
