"""Everyone's pose, box and label drawn on a photograph or on a frame of a video."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.coco.people import Skeleton
from pipeline.coco.poses import ScoreRule
from pipeline.pictures.poses import OUTLINE_COLOUR, Colour, Picture, draw_pose
from pipeline.prediction.image_poses import ImagePoses

PERSON_COLOURS: tuple[Colour, ...] = (
    *((255, 255, 255), (240, 90, 160), (250, 220, 60), (120, 220, 230), (180, 130, 255)),
    *((160, 240, 120), (255, 150, 110), (110, 150, 255)),
)
"""Colours of boxes: by track id, else the first; those of a pose tell left from right."""


def draw_people(
    image: Picture,
    poses: ImagePoses,
    skeleton: Skeleton,
    rule: ScoreRule,
    *,
    track_ids: NDArray[np.int64] | None = None,
    min_keypoint_score: float | None = None,
    with_boxes: bool = True,
) -> Picture:
    """Draw the poses of everyone in an image, the best last, each with its box and its score.

    Keypoints whose score was never trained, for no training person had them, are not drawn.

    image: (H, W, 3) uint8, RGB; not changed.
    track_ids: (P,), which stand before the score; None: no video.
    min_keypoint_score: keypoints of a lower score are not drawn; None: all are.
    """
    picture = np.ascontiguousarray(image).copy()
    is_known = np.ones(skeleton.num_keypoints, np.bool_)
    if rule.kind == "learned" and rule.scored_keypoints is not None:
        is_known[:] = False
        is_known[list(rule.scored_keypoints)] = True
    order = np.argsort(poses.scores, kind="stable").tolist()
    labels: list[tuple[NDArray[np.float64], str, Colour]] = []
    for row in order:
        box, track_id = poses.bbox_xywh[row], None if track_ids is None else int(track_ids[row])
        colour = PERSON_COLOURS[0 if track_id is None else track_id % len(PERSON_COLOURS)]
        if with_boxes:
            _rectangle(picture, box, colour)
        is_drawn = is_known.copy()
        if min_keypoint_score is not None and rule.kind == "learned":
            is_drawn &= poses.keypoint_scores[row] >= min_keypoint_score
        height = float(np.clip(box[3], 1, picture.shape[0]))
        picture = draw_pose(picture, poses.keypoints[row], is_drawn, skeleton, height)
        words = [] if track_id is None else [str(track_id)]
        words += [f"{poses.scores[row]:.2f}"] if rule.kind == "learned" else []
        if words:
            labels.append((box, "  ".join(words), colour))
    return _with_labels(picture, labels)


def _rectangle(picture: Picture, bbox_xywh: NDArray[np.float64], colour: Colour) -> None:
    width = max(1, round(min(picture.shape[:2]) / 400))
    start = np.rint(bbox_xywh[:2]).astype(int).tolist()
    end = np.rint(bbox_xywh[:2] + bbox_xywh[2:] - 1).astype(int).tolist()
    cv2.rectangle(picture, start, end, OUTLINE_COLOUR, width + 2, cv2.LINE_AA)
    cv2.rectangle(picture, start, end, colour, width, cv2.LINE_AA)


def _with_labels(
    picture: Picture, labels: Sequence[tuple[NDArray[np.float64], str, Colour]]
) -> Picture:
    """Write each text on a dark strip in the upper left corner of its box, inside the picture."""
    if not labels:
        return picture
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas, "RGBA")
    size = max(10, round(min(picture.shape[:2]) / 36))
    font = ImageFont.load_default(size=size)
    for box, text, colour in labels:
        width, height = pen.textlength(text, font=font) + size, 1.4 * size
        x = float(np.clip(box[0], 0, max(picture.shape[1] - width, 0)))
        y = float(np.clip(box[1] - height, 0, max(picture.shape[0] - height, 0)))
        pen.rectangle((x, y, x + width, y + height), fill=(*OUTLINE_COLOUR, 190))
        pen.text((x + size / 2, y + height / 2), text, colour, font=font, anchor="lm")
    return np.array(canvas, np.uint8)
