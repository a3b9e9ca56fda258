"""Random skeletons in three dimensions: proportions, joint limits, poses, and a turned camera.

Lengths are in statures (a person's height is about 1). Axes: x to the image's right, y down, z
towards the camera. A body is posed facing the camera, so that its left is at positive x, and is
then turned as a whole, so views from behind or the side and lying people need no further rules.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
View = Literal["front", "side", "back"]


class Joint(IntEnum):
    """Rows of a skeleton: the 17 COCO keypoints, then joints that only the drawing needs."""

    NOSE = 0
    LEFT_EYE = 1
    RIGHT_EYE = 2
    LEFT_EAR = 3
    RIGHT_EAR = 4
    LEFT_SHOULDER = 5
    RIGHT_SHOULDER = 6
    LEFT_ELBOW = 7
    RIGHT_ELBOW = 8
    LEFT_WRIST = 9
    RIGHT_WRIST = 10
    LEFT_HIP = 11
    RIGHT_HIP = 12
    LEFT_KNEE = 13
    RIGHT_KNEE = 14
    LEFT_ANKLE = 15
    RIGHT_ANKLE = 16
    LEFT_HAND = 17
    RIGHT_HAND = 18
    LEFT_TOE = 19
    RIGHT_TOE = 20
    NECK = 21
    PELVIS = 22
    HEAD = 23


NUM_KEYPOINTS = 17
FACE_DIRECTIONS: Vector = np.array(
    [[0, 0.25, 1.03], [0.38, -0.12, 0.917], [-0.38, -0.12, 0.917], [1, 0.08, 0], [-1, 0.08, 0]]
)
"""Nose, eyes and ears (5, 3) on the unit sphere, of which the head is a stretched copy."""


@dataclass(frozen=True)
class Proportions:
    """Lengths of a body, in statures."""

    half_shoulders: float
    half_hips: float
    torso: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    neck: float
    head_radii: Vector  # (3,), across, up, forward
    girth: float  # factor on every limb's radius


@dataclass(frozen=True)
class PosedBody:
    """A skeleton as the camera sees it."""

    joints: Vector  # (24, 3), rows as in Joint, statures
    head_rotation: Vector  # (3, 3), head axes to camera axes
    proportions: Proportions
    view: View


def sample_body(rng: np.random.Generator) -> PosedBody:
    """Draw proportions, a pose within joint limits, and the direction of the camera."""
    proportions = sample_proportions(rng)
    sits = rng.random() < 0.18
    joints, head_rotation = _pose(rng, proportions, sits)
    view, yaw = _sample_view(rng)
    camera = _turn_z(_sample_roll(rng)) @ _turn_x(rng.normal(0, 0.13)) @ _turn_y(yaw)
    return PosedBody(joints @ camera.T, camera @ head_rotation, proportions, view)


def sample_proportions(rng: np.random.Generator) -> Proportions:
    """Draw a build between slim adult and stout child."""
    head = rng.uniform(0.066, 0.082)
    shoulders = rng.uniform(0.098, 0.132)
    arm, leg = rng.uniform(0.93, 1.07, 2)
    return Proportions(
        half_shoulders=shoulders,
        half_hips=rng.uniform(0.055, 0.075),
        torso=rng.uniform(0.27, 0.31),
        upper_arm=arm * rng.uniform(0.16, 0.18),
        forearm=arm * rng.uniform(0.14, 0.16),
        thigh=leg * rng.uniform(0.225, 0.25),
        shin=leg * rng.uniform(0.215, 0.24),
        neck=rng.uniform(0.022, 0.04),
        head_radii=head * np.array([1.0, rng.uniform(1.2, 1.38), rng.uniform(1.02, 1.15)]),
        girth=rng.uniform(0.85, 1.25),
    )


def _pose(rng: np.random.Generator, size: Proportions, sits: bool) -> tuple[Vector, Vector]:
    joints = np.zeros((len(Joint), 3))
    lean = rng.uniform(-0.1, 0.5) if sits or rng.random() < 0.25 else rng.normal(0.03, 0.08)
    torso = _turn_y(rng.normal(0, 0.2)) @ _turn_z(rng.normal(0, 0.1)) @ _turn_x(lean)
    neck = torso @ np.array([0, -size.torso - 0.015, 0])
    joints[Joint.NECK] = neck
    for side, sign in enumerate((1, -1)):
        shrug = rng.uniform(0.005, 0.025)
        joints[Joint.LEFT_SHOULDER + side] = neck + torso @ [sign * size.half_shoulders, shrug, 0]
        joints[Joint.LEFT_HIP + side] = sign * size.half_hips, 0, 0
    head = torso @ _turn_y(np.clip(rng.normal(0, 0.4), -1.1, 1.1)) @ _turn_z(rng.normal(0, 0.13))
    head = head @ _turn_x(np.clip(rng.normal(0.05, 0.18), -0.5, 0.5))
    radii = size.head_radii
    joints[Joint.HEAD] = neck + torso @ [0, -size.neck, 0.008] + head @ [0, -0.9 * radii[1], 0]
    joints[: len(FACE_DIRECTIONS)] = joints[Joint.HEAD] + (FACE_DIRECTIONS * radii) @ head.T
    _pose_arms(rng, joints, size, torso)
    _pose_legs(rng, joints, size, sits)
    return joints, head


ARM_POSES = ("hang", "hang", "raise", "sideways", "forward", "hip", "fold", "free")
LEG_POSES = ("stand", "stand", "wide", "walk", "walk", "squat", "kick", "free")


def _pose_arms(rng: np.random.Generator, joints: Vector, size: Proportions, torso: Vector) -> None:
    both = rng.choice(ARM_POSES) if rng.random() < 0.5 else None
    for side, sign in enumerate((1, -1)):
        raised, azimuth, bend, hint = _arm_angles(rng, str(both or rng.choice(ARM_POSES)))
        upper = _direction(raised, azimuth, sign)
        hint = hint * [sign, 1, 1]
        across = hint - (hint @ upper) * upper
        across /= max(float(np.linalg.norm(across)), 1e-6)
        lower = np.cos(bend) * upper + np.sin(bend) * across
        hand = lower + rng.normal(0, 0.2, 3)
        elbow = joints[Joint.LEFT_SHOULDER + side] + torso @ upper * size.upper_arm
        wrist = elbow + torso @ lower * size.forearm
        joints[Joint.LEFT_ELBOW + side] = elbow
        joints[Joint.LEFT_WRIST + side] = wrist
        joints[Joint.LEFT_HAND + side] = wrist + torso @ hand * 0.038 / np.linalg.norm(hand)


def _arm_angles(rng: np.random.Generator, pose: str) -> tuple[float, float, float, Vector]:
    """Return how far the arm is raised, its azimuth (0 outward, pi/2 forward), bend and hint.

    The hint is the direction of the bent forearm, in the torso's axes of a left arm.
    """
    u = rng.uniform
    jitter = rng.normal(0, 0.25, 3)
    match pose:
        case "hang":
            return u(0.05, 0.5), u(-0.6, 1.6), u(0.0, 0.7), np.array([-0.3, -0.3, 1]) + jitter
        case "raise":
            return u(1.8, 2.95), u(-0.2, 1.2), u(0.0, 1.6), np.array([-0.8, -1, 0.4]) + jitter
        case "sideways":
            return u(1.1, 1.8), u(-0.2, 0.4), u(0.0, 1.7), np.array([-0.2, -1, 0.5]) + jitter
        case "forward":
            return u(0.8, 1.7), u(0.9, 1.8), u(0.0, 1.2), np.array([-0.6, -0.8, 0.2]) + jitter
        case "hip":
            return u(0.55, 0.9), u(-0.5, 0.2), u(1.2, 1.9), np.array([-1, 0.3, 0.3]) + jitter / 2
        case "fold":
            return u(0.2, 0.6), u(0.2, 1.4), u(1.3, 2.2), np.array([-0.9, -0.3, 0.7]) + jitter
    return u(0.0, 2.9), u(-0.5, 1.8), u(0.0, 2.4), np.array([-0.3, -0.3, 0.5]) + 2 * jitter


def _pose_legs(rng: np.random.Generator, joints: Vector, size: Proportions, sits: bool) -> None:
    pose = "sit" if sits else str(rng.choice(LEG_POSES))
    stride = rng.choice((-1.0, 1.0))
    for side, sign in enumerate((1, -1)):
        raised, azimuth, bend = _leg_angles(rng, pose, bool(stride == sign))
        upper = _direction(raised, azimuth, sign)
        # The knee is a hinge about an axis near the body's x: the shin swings backwards.
        hinge = np.array([1.0, 0.0, -0.5 * sign * np.sin(raised) * np.cos(azimuth)])
        back = np.cross(upper, hinge)
        back /= np.linalg.norm(back)
        lower = np.cos(bend) * upper + np.sin(bend) * back
        ahead = np.cross(hinge, lower)
        foot = ahead / np.linalg.norm(ahead) + 0.35 * lower + [0.25 * sign, 0, 0]
        knee = joints[Joint.LEFT_HIP + side] + upper * size.thigh
        ankle = knee + lower * size.shin
        joints[Joint.LEFT_KNEE + side] = knee
        joints[Joint.LEFT_ANKLE + side] = ankle
        joints[Joint.LEFT_TOE + side] = ankle + foot * 0.075 / np.linalg.norm(foot)


def _leg_angles(
    rng: np.random.Generator, pose: str, is_leading: bool
) -> tuple[float, float, float]:
    """Return how far the thigh is raised, its azimuth (as an arm's), and the knee's bend."""
    u = rng.uniform
    match pose:
        case "stand":
            return u(0.0, 0.15), u(-0.5, 1.5), u(0.0, 0.15)
        case "wide":
            return u(0.15, 0.6), u(-0.2, 0.5), u(0.0, 0.3)
        case "walk" if is_leading:
            return u(0.2, 0.75), u(1.3, 1.6), u(0.0, 0.6)
        case "walk":
            return u(0.1, 0.5), u(-1.7, -1.3), u(0.1, 0.9)
        case "sit":
            return u(1.15, 1.7), u(0.9, 1.65), u(0.9, 1.8)
        case "squat":
            return u(0.8, 1.6), u(0.7, 1.4), u(1.2, 2.2)
        case "kick" if is_leading:
            return u(0.8, 1.7), u(0.0, 1.6), u(0.0, 1.5)
        case "kick":
            return u(0.0, 0.2), u(-0.5, 1.5), u(0.0, 0.3)
    return u(0.0, 1.5), u(-0.2, 1.7), u(0.0, 2.0)


def _sample_view(rng: np.random.Generator) -> tuple[View, float]:
    kind, sign = rng.random(), rng.choice((-1.0, 1.0))
    if kind < 0.62:
        return "front", float(np.clip(rng.normal(0, 0.35), -0.8, 0.8))
    if kind < 0.8:
        return "side", float(sign * rng.uniform(0.85, 1.9))
    return "back", float(np.pi + np.clip(rng.normal(0, 0.4), -0.8, 0.8))


def _sample_roll(rng: np.random.Generator) -> float:
    kind = rng.random()
    if kind < 0.86:
        return float(rng.normal(0, 0.09))
    if kind < 0.95:
        return float(rng.choice((-1.0, 1.0)) * rng.uniform(1.2, 1.9))
    return float(rng.uniform(-np.pi, np.pi))


def _direction(raised: float, azimuth: float, sign: int) -> Vector:
    """Return a limb's direction: raised 0 is down, azimuth 0 is away from the body's middle."""
    out, ahead = np.sin(raised) * np.cos(azimuth), np.sin(raised) * np.sin(azimuth)
    return np.array([sign * out, np.cos(raised), ahead])


def _turn_x(angle: float) -> Vector:
    """Nod forward: the top of a body (negative y) moves towards positive z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def _turn_y(angle: float) -> Vector:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _turn_z(angle: float) -> Vector:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
