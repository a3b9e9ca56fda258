"""A figure in an image, the labels of its parts, and the keypoints those labels show.

Every painted part writes its own label, so that a keypoint's visibility is a look-up: is the part
that shows at the keypoint one that the keypoint belongs to?
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.drawn.clothes import Clothes
from pipeline.drawn.skeleton import FACE_DIRECTIONS, NUM_KEYPOINTS, Joint, PosedBody, Vector


class Part(IntEnum):
    """Label of a pixel inside one person; the labels of person p are PART_STRIDE * p + part."""

    TORSO = 1
    HEAD = 2
    HAIR = 3
    LEFT_UPPER_ARM = 4
    RIGHT_UPPER_ARM = 5
    LEFT_FOREARM = 6
    RIGHT_FOREARM = 7
    LEFT_THIGH = 8
    RIGHT_THIGH = 9
    LEFT_SHIN = 10
    RIGHT_SHIN = 11
    SKIRT = 12
    NECK = 13
    LEFT_EAR = 14
    RIGHT_EAR = 15


PART_STRIDE = 32


@dataclass(frozen=True)
class Figure:
    """A posed body placed in an image."""

    body: PosedBody
    clothes: Clothes
    joints: Vector  # (24, 3): x, y image pixels, z pixels towards the camera
    stature: float  # pixels


def place_figure(body: PosedBody, clothes: Clothes, stature: float, origin: Vector) -> Figure:
    """Put a body's pelvis at origin (2,), image pixels."""
    return Figure(body, clothes, body.joints * stature + [origin[0], origin[1], 0], stature)


KEYPOINT_PARTS: tuple[frozenset[int], ...] = (
    *(frozenset({Part.HEAD}),) * 3,
    frozenset({Part.HEAD, Part.LEFT_EAR}),
    frozenset({Part.HEAD, Part.RIGHT_EAR}),
    *(frozenset({Part.TORSO, Part.LEFT_UPPER_ARM + i}) for i in (0, 1)),
    *(frozenset({Part.LEFT_UPPER_ARM + i, Part.LEFT_FOREARM + i}) for i in (0, 1)),
    *(frozenset({Part.LEFT_FOREARM + i}) for i in (0, 1)),
    *(frozenset({Part.TORSO, Part.SKIRT, Part.LEFT_THIGH + i}) for i in (0, 1)),
    *(frozenset({Part.LEFT_THIGH + i, Part.LEFT_SHIN + i}) for i in (0, 1)),
    *(frozenset({Part.LEFT_SHIN + i}) for i in (0, 1)),
)
NEIGHBOURS = (
    (1, 2), (0, 2, 3), (0, 1, 4), (1, 5), (2, 6), (6, 7, 11), (5, 8, 12), (5, 9), (6, 10),
    (7,), (8,), (12, 5, 13), (11, 6, 14), (11, 15), (12, 16), (13,), (14,),
)  # fmt: skip


def label_keypoints(figure: Figure, labels: NDArray[np.int32], person: int) -> Vector:
    """Return the places and the visibility of the keypoints, once everything is painted.

    labels: (H, W) from the canvas.
    Returns (17, 3) as (x, y, visibility), image pixels; (0, 0, 0) for a keypoint outside the
    image, or one that is hidden together with its neighbours.
    """
    height, width = labels.shape
    points = figure.joints[:NUM_KEYPOINTS]
    column, row = np.rint(points[:, 0]).astype(int), np.rint(points[:, 1]).astype(int)
    is_inside = (points[:, 0] >= 0) & (points[:, 0] <= width - 1)
    is_inside &= (points[:, 1] >= 0) & (points[:, 1] <= height - 1)
    owner = labels[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    belongs = [
        int(o) - PART_STRIDE * person in parts
        for o, parts in zip(owner, KEYPOINT_PARTS, strict=True)
    ]
    is_person = owner // PART_STRIDE == person
    facing = FACE_DIRECTIONS @ figure.body.head_rotation[2]
    shows = is_inside & belongs & _is_near_side(figure, facing)
    visibility = np.where(shows, 2, 1)
    for k, neighbours in enumerate(NEIGHBOURS):
        is_traceable = is_person[k] or any(shows[n] for n in neighbours)
        is_behind_head = k < 3 and facing[k] < -0.3
        if not is_inside[k] or not is_traceable or is_behind_head:
            visibility[k] = 0
    keypoints = np.column_stack([points[:, :2], visibility])
    keypoints[visibility == 0] = 0
    return keypoints


def _is_near_side(figure: Figure, facing: Vector) -> NDArray[np.bool_]:
    """Return (17,), false for keypoints that the head or the torso itself hides."""
    is_near = np.ones(NUM_KEYPOINTS, np.bool_)
    is_near[:3] = facing[:3] > 0.05
    is_near[3:5] = facing[3:5] > -0.35
    for joint, middle in ((Joint.LEFT_SHOULDER, Joint.NECK), (Joint.LEFT_HIP, Joint.PELVIS)):
        pair = figure.joints[joint : joint + 2, 2] - figure.joints[middle, 2]
        is_near[joint : joint + 2] = pair > -0.05 * figure.stature
    return is_near
