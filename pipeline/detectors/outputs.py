"""The usual outputs of detectors as boxes with scores, in pixels of the detector's input.

Which they are follows from their shapes for one image; rows may lack the dimension of the batch:

    (N, 4) and (N) or (N, C)             boxes with scores, of one class or of C; (N) whole numbers
                                         beside them are class labels (torchvision)
    (N, 5), perhaps (N) labels           boxes with their score as a fifth number (mmdeploy, YOLOX)
    (N, 6)                               boxes, score, class label (YOLO exported with NMS)
    (4 + C, N)                           boxes and scores of C classes, N > 4 + C (YOLOv8 and later)
    (C, h, w), (2, h, w), (2, h, w)      heat maps of centres, sizes (w, h) in cells, and perhaps
                                         offsets in cells (CenterNet, Zhou et al. 2019)
"""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.detectors.settings import DetectorSettings
from pipeline.errors import ConfigError

Array = NDArray[np.float64]
MAX_BOXES = 300
"""Most boxes of an image: more centres than COCO's evaluation counts boxes, 100, by far."""
_KNOWN = (
    "expected boxes (N, 4) with scores (N) or (N, C), boxes (N, 5) or (N, 6), (4 + C, N), or heat "
    "maps (C, h, w) with sizes (2, h, w)"
)


def decode_outputs(
    outputs: Mapping[str, NDArray[np.generic]],
    input_size_hw: tuple[int, int],
    settings: DetectorSettings,
) -> tuple[Array, Array]:
    """Find the boxes of people in a detector's outputs for one image.

    outputs: by name, in the model's order.
    Returns: boxes (N, 4) as (x0, y0, x1, y1), pixels of the detector's input; scores (N,).

    Raises:
        ConfigError: the outputs are none of the known layouts.
    """
    values = {name: np.asarray(value) for name, value in outputs.items()}
    most = max(value.ndim for value in values.values())
    if most not in (2, 3, 4):
        raise _unknown(values)
    has_batch = most > 2  # rows without a batch have two dimensions, maps always have one
    if has_batch and any(value.shape[:1] != (1,) for value in values.values()):
        raise _unknown(values)
    found = {name: value[0] if has_batch else value for name, value in values.items()}
    if most == 4:
        return _decode_maps(found, input_size_hw, settings)
    rows, scores, is_raw = _split_rows(found, settings)
    boxes = _as_corners(rows, settings.box_format or ("cxcywh" if is_raw else "xyxy"))
    if settings.box_unit == "fraction":
        height, width = input_size_hw
        boxes = boxes * np.array([width, height, width, height], np.float64)
    return boxes, scores


def suppress_overlaps(boxes: Array, scores: Array, overlap: float) -> NDArray[np.int64]:
    """Drop boxes that overlap a better one by more than ``overlap`` (IoU), greedily.

    boxes: (N, 4) as (x0, y0, x1, y1). scores: (N,). Of equal scores the earlier row is kept.
    Returns: (M,) int64, the kept rows by descending score.
    """
    rows = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while rows.size:
        best, rows = int(rows[0]), rows[1:]
        kept.append(best)
        rows = rows[box_overlaps(boxes[best : best + 1], boxes[rows])[0] <= overlap]
    return np.array(kept, np.int64)


def box_overlaps(boxes: Array, others: Array) -> Array:
    """Return the IoU of boxes (N, 4) and others (M, 4), as (x0, y0, x1, y1): (N, M)."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    extent = np.clip(np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner, 0, None)
    common = extent.prod(axis=-1)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=-1) for each in (boxes, others)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray(common / np.maximum(union, np.finfo(np.float64).tiny))


def _split_rows(
    found: Mapping[str, NDArray[np.generic]], settings: DetectorSettings
) -> tuple[Array, Array, bool]:
    """Return four numbers (N, 4) and a score (N,) for each person, and whether rows are raw."""
    rows = {name: value for name, value in found.items() if value.ndim == 2}
    columns = {name: value for name, value in found.items() if value.ndim == 1}
    labels = [v for v in columns.values() if np.issubdtype(v.dtype, np.integer)]
    numbers = [v for v in columns.values() if not np.issubdtype(v.dtype, np.integer)]
    person = settings.person_class
    of_width = {value.shape[1]: value.astype(np.float64) for value in reversed(rows.values())}
    if 4 in of_width:
        boxes = of_width.pop(4)
        if len(numbers) == 1:
            return *_of_label(boxes, numbers[0].astype(np.float64), labels, person), False
        classes = [value for value in of_width.values() if len(value) == len(boxes)]
        if len(classes) == 1:
            return boxes, _class_scores(classes[0], person), False
    elif len(rows) == 1:
        (table,) = (value.astype(np.float64) for value in rows.values())
        if table.shape[1] == 5:
            return *_of_label(table[:, :4], table[:, 4], labels, person), False
        if table.shape[1] == 6:
            is_person = table[:, 5] == person
            return table[is_person, :4], table[is_person, 4], False
        if 4 < len(table) < table.shape[1]:
            return table[:4].T, _class_scores(table[4:].T, person), True
    raise _unknown(found)


def _of_label(
    boxes: Array, scores: Array, labels: list[NDArray[np.generic]], person: int
) -> tuple[Array, Array]:
    if not labels:
        return boxes, scores
    is_person = labels[0] == person
    return boxes[is_person], scores[is_person]


def _class_scores(scores: Array, person: int) -> Array:
    if person >= scores.shape[1]:
        raise ConfigError(
            f"detector_settings.person_class is {person}, but the detector has {scores.shape[1]} "
            "classes, counted from 0; give the index of the class person"
        )
    return scores[:, person]


def _as_corners(rows: Array, box_format: str) -> Array:
    first, second = rows[:, :2], rows[:, 2:]
    if box_format == "xyxy":
        return rows
    corner = first if box_format == "xywh" else first - second / 2
    return np.concatenate([corner, corner + second], axis=1)


def _decode_maps(
    found: Mapping[str, NDArray[np.generic]],
    input_size_hw: tuple[int, int],
    settings: DetectorSettings,
) -> tuple[Array, Array]:
    """Take each local maximum of the heat for a centre; its size stands in the same cell."""
    maps = [value.astype(np.float64) for value in found.values() if value.ndim == 3]
    pairs = [value for value in maps if len(value) == 2]
    heats = [value for value in maps if len(value) != 2]
    if not heats and len(pairs) == 3:  # two classes: the heat is the first, as CenterNet has it
        heats, pairs = pairs[:1], pairs[1:]
    if len(heats) != 1 or not 1 <= len(pairs) <= 2 or len({m.shape[1:] for m in maps}) != 1:
        raise _unknown(found)
    heat = _class_scores(heats[0].reshape(len(heats[0]), -1).T, settings.person_class)
    heat = heat.reshape(maps[0].shape[1:])
    if settings.heat_activation == "sigmoid":
        heat = 1 / (1 + np.exp(-heat))
    is_peak = heat == cv2.dilate(heat, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero(is_peak)
    best = np.argsort(-heat[rows, columns], kind="stable")[:MAX_BOXES]
    rows, columns = rows[best], columns[best]
    cells = np.stack([columns, rows], axis=1).astype(np.float64)
    # A target's centre is cut to its cell, and the offset is the rest; without one, half a cell.
    cells += pairs[1][:, rows, columns].T if len(pairs) == 2 else 0.5
    half = pairs[0][:, rows, columns].T / 2
    stride = np.array(input_size_hw[::-1]) / np.array(heat.shape[::-1])
    corners = np.concatenate([(cells - half) * stride, (cells + half) * stride], axis=1)
    return corners, heat[rows, columns]


def _unknown(found: Mapping[str, NDArray[np.generic]]) -> ConfigError:
    shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in found.items())
    return ConfigError(
        f"the detector's outputs for one image are {shapes}; {_KNOWN}; export the model with one "
        "of them"
    )
