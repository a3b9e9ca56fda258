"""One drawn person: body parts as shaded capsules, painted from far to near."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.drawn.canvas import Canvas, Covering, Light, Material, paint_capsules
from pipeline.drawn.head import paint_head
from pipeline.drawn.parts import PART_STRIDE, Figure, Part
from pipeline.drawn.skeleton import Joint, Vector


@dataclass(frozen=True)
class _Shape:
    part: Part
    depth: float  # pixels towards the camera
    capsules: NDArray[np.float64]  # (n, 6)
    covering: Covering


def paint_figure(canvas: Canvas, figure: Figure, light: Light, person: int) -> None:
    """Paint a figure with labels PART_STRIDE * person + Part; person counts from 1."""
    shapes = [*_limbs(figure), *_trunk(figure)]
    head_depth = figure.joints[Joint.HEAD, 2] + 0.02 * figure.stature
    is_head_painted = False
    for shape in sorted(shapes, key=lambda shape: shape.depth):
        if not is_head_painted and shape.depth > head_depth:
            paint_head(canvas, figure, light, person)
            is_head_painted = True
        label = PART_STRIDE * person + shape.part
        paint_capsules(canvas, shape.capsules, shape.covering, light, label)
    if not is_head_painted:
        paint_head(canvas, figure, light, person)


def _capsule(figure: Figure, start: Vector, end: Vector, first: float, last: float) -> Vector:
    """Return a capsule row from joints (3,) in pixels and radii in statures."""
    radii = np.array([first, last]) * figure.stature * figure.body.proportions.girth
    return np.concatenate([start[:2], end[:2], radii])


def _limbs(figure: Figure) -> list[_Shape]:
    joints, clothes, shapes = figure.joints, figure.clothes, []
    for side in (0, 1):
        shoulder, elbow = joints[Joint.LEFT_SHOULDER + side], joints[Joint.LEFT_ELBOW + side]
        wrist, hand = joints[Joint.LEFT_WRIST + side], joints[Joint.LEFT_HAND + side]
        hip, knee = joints[Joint.LEFT_HIP + side], joints[Joint.LEFT_KNEE + side]
        ankle, toe = joints[Joint.LEFT_ANKLE + side], joints[Joint.LEFT_TOE + side]
        sleeve = Covering(clothes.shirt, clothes.skin, clothes.sleeves)
        cuff = replace(sleeve, fraction=clothes.sleeves - 1)
        leg = Covering(clothes.trousers, clothes.skin, clothes.trouser_legs)
        hem = replace(leg, fraction=clothes.trouser_legs - 1)
        bare = Covering(clothes.skin, clothes.skin, 1)
        shoe = Covering(clothes.shoes, clothes.shoes, 1)
        rows = (
            (Part.LEFT_UPPER_ARM, shoulder, elbow, 0.036, 0.026, sleeve, 0.02),
            (Part.LEFT_FOREARM, elbow, wrist, 0.026, 0.018, cuff, 0.022),
            (Part.LEFT_FOREARM, wrist, hand, 0.019, 0.021, bare, 0.021),
            (Part.LEFT_THIGH, hip, knee, 0.05, 0.034, leg, -0.025),
            (Part.LEFT_SHIN, knee, ankle, 0.034, 0.021, hem, -0.027),
            (Part.LEFT_SHIN, ankle, toe, 0.023, 0.02, shoe, -0.02),
        )
        for part, start, end, first, last, covering, bias in rows:
            depth = (start[2] + end[2]) / 2 + bias * figure.stature
            capsule = _capsule(figure, start, end, first, last)[None]
            shapes.append(_Shape(Part(part + side), depth, capsule, covering))
    return shapes


def _trunk(figure: Figure) -> list[_Shape]:
    """Return the torso, the neck, and a skirt and long hair if the person has them."""
    joints, clothes, stature = figure.joints, figure.clothes, figure.stature
    neck, pelvis, head = joints[Joint.NECK], joints[Joint.PELVIS], joints[Joint.HEAD]
    shoulders = joints[[Joint.LEFT_SHOULDER, Joint.RIGHT_SHOULDER]]
    hips = joints[[Joint.LEFT_HIP, Joint.RIGHT_HIP]]
    knees = joints[[Joint.LEFT_KNEE, Joint.RIGHT_KNEE]]
    sides = [_capsule(figure, shoulders[i], hips[i], 0.036, 0.046) for i in (0, 1)]
    spine = _capsule(figure, neck + 0.12 * (pelvis - neck), pelvis, 0.06, 0.062)
    depth = (neck[2] + pelvis[2]) / 2
    shapes = [
        _Shape(
            Part.TORSO, depth, np.stack([spine, *sides]), Covering(clothes.shirt, clothes.skin, 2)
        ),
        _Shape(
            Part.NECK,
            min(depth, head[2]) + 0.001 * stature if figure.body.view != "back" else depth,
            _capsule(figure, neck + 0.1 * (pelvis - neck), head, 0.03, 0.028)[None],
            Covering(clothes.skin, clothes.skin, 1),
        ),
    ]
    if clothes.skirt > 0:
        ends = hips + clothes.skirt * (knees - hips)
        cloth = [_capsule(figure, hips[i], ends[i], 0.052, 0.062) for i in (0, 1)]
        middle = _capsule(figure, pelvis, ends.mean(axis=0), 0.06, 0.068)
        covering = Covering(clothes.trousers, clothes.skin, 2)
        depth = float(max(depth - 0.001 * stature, (hips[:, 2] + ends[:, 2]).max() / 2))
        shapes.append(_Shape(Part.SKIRT, depth, np.stack([middle, *cloth]), covering))
    if clothes.has_long_hair:
        shapes.append(_long_hair(figure))
    return shapes


def _long_hair(figure: Figure) -> _Shape:
    rotation, radii = figure.body.head_rotation, figure.body.proportions.head_radii
    ends = np.array([[0, -0.1, -0.25], [0, 1.25, -0.75]]) * radii @ rotation.T * figure.stature
    start, end = figure.joints[Joint.HEAD] + ends
    width = radii[0] / figure.body.proportions.girth
    hair = Material(figure.clothes.hair, figure.clothes.hair * np.float32(0.75), "stripes", 3.0)
    capsule = _capsule(figure, start, end, 1.08 * width, 0.9 * width)[None]
    return _Shape(Part.HAIR, (start[2] + end[2]) / 2, capsule, Covering(hair, hair, 1))
