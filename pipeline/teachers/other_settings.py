"""The teacher under other settings: channels, scale of pixels, heatmap frame, order of keypoints.

Pixels are predicted again; frames and orders follow from the heatmaps that are there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.frames.geometry import HEATMAP_FRAMES, apply, crop_to_heatmap, invert
from pipeline.frames.heatmaps import decode_heatmaps
from pipeline.teachers.person_accuracy import (
    LONGEST_DISTANCE,
    Alternative,
    PersonAccuracy,
    compare,
    distances,
    person_accuracy,
)
from pipeline.teachers.probe import Probe
from pipeline.teachers.teacher import Teacher

LEAST_LABELS = 4
"""Smallest number of labels of a keypoint by which its place in the order is told."""
_FIRST_PEOPLE = 32
"""People who are predicted under another setting first; the others only if it seems better."""


@dataclass(frozen=True)
class Measured:
    """What a teacher, as it is set, finds on the probe."""

    teacher: Teacher
    probe: Probe
    people: People
    """The people of the probe (B), in its order."""
    keypoints: NDArray[np.float64]  # (B, K, 2), crop pixels
    accuracy: PersonAccuracy
    labelled: NDArray[np.int64]  # rows of people with labels

    def compare(self, what: str, option: str, keypoints: NDArray[np.float64]) -> Alternative:
        """Compare keypoints (B, K, 2) of all people, crop pixels, with the teacher's own."""
        other = person_accuracy(keypoints, self.probe.image_to_crop, self.people)
        return compare(what, option, other, self.accuracy)


def other_pixels(own: Measured) -> Iterator[Alternative]:
    """Predict with the channels reversed, and with pixels 255 times as large or small."""
    settings = own.teacher.settings
    order = "bgr" if settings.channel_order == "rgb" else "rgb"
    reverse = {"channel_order": order}
    yield _predicted(own, f"channels in {order.upper()} order", f"--channel-order {order}", reverse)
    # the other factor would make pixels of 0 to 1 black, or those of 0 to 255 reach 65,000
    is_small = settings.scale < 1 / 16
    scale = settings.scale * (255 if is_small else 1 / 255)
    words = f"pixels {'255 times' if is_small else 'a 255th'} as large"
    yield _predicted(own, words, f"--pixel-scale {scale:.6g}", {"scale": scale})


def _predicted(own: Measured, what: str, option: str, change: dict[str, Any]) -> Alternative:
    """Predict some people again under a change of settings, and all if that seems better."""
    teacher = Teacher(own.teacher.network, own.teacher.settings.model_copy(update=change))
    other = PersonAccuracy.unknown(own.people.num_instances)
    first = own.labelled[:: -(-len(own.labelled) // _FIRST_PEOPLE)]
    for rows in (first, np.setdiff1d(own.labelled, first)):
        keypoints, _ = teacher.decode_heatmaps(teacher.predict_heatmaps(own.probe.crops[rows]))
        affines, people = own.probe.image_to_crop[rows], own.people.select(rows)
        other.fill(rows, person_accuracy(keypoints, affines, people))
        compared = compare(what, option, other, own.accuracy)
        if compared.gain <= 0 or len(first) == len(own.labelled):
            break
    return compared


def other_frames(own: Measured) -> Iterator[Alternative]:
    """Decode the heatmaps in the other frames."""
    teacher = own.teacher
    cells, _ = decode_heatmaps(own.probe.heatmaps, teacher.settings.decoding)
    for frame in HEATMAP_FRAMES:
        if frame != teacher.frame:
            affine = crop_to_heatmap(frame, teacher.input_size_hw, teacher.heatmap_size_hw)
            points = apply(invert(affine), cells)
            yield own.compare(f"heatmap frame {frame}", f"--heatmap-frame {frame}", points)


def other_orders(own: Measured) -> Iterator[Alternative]:
    """Exchange left and right, and take the keypoints in the order that fits the truth best."""
    swap = np.array(own.people.skeleton.flip_indices)
    sides = own.compare(
        "left and right exchanged", _order_option(own.teacher, swap), own.keypoints[:, swap]
    )
    yield sides
    # Fitted on one half of the people and measured on the other, as any order fits its own people.
    other = PersonAccuracy.unknown(own.people.num_instances)
    halves = own.labelled[::2], own.labelled[1::2]
    for fitted, rows in (halves, halves[::-1]):
        keypoints = own.keypoints[rows][:, _best_order(own, fitted)]
        affines, people = own.probe.image_to_crop[rows], own.people.select(rows)
        other.fill(rows, person_accuracy(keypoints, affines, people))
    order = _best_order(own, own.labelled)
    is_guess = (own.people.is_labelled.sum(axis=0) < LEAST_LABELS) & (
        order != np.arange(len(order))
    )
    guessed = [own.people.skeleton.keypoint_names[place] for place in np.flatnonzero(is_guess)]
    note = f" (a guess for {', '.join(guessed)}, which have no labels)" if guessed else ""
    option = _order_option(own.teacher, order) + note
    best = compare("keypoints in the order that fits best", option, other, own.accuracy)
    # exchanged sides are an order too, and the plainer advice
    if not sides.is_clear or best.pck > sides.pck + 0.01:
        yield best


def _order_option(teacher: Teacher, order: NDArray[np.int64]) -> str:
    """Return the option that puts the teacher's keypoints, as they are ordered now, in an order."""
    now = np.array(teacher.settings.keypoint_order or range(teacher.num_keypoints))
    outputs: list[int] = now[order].tolist()
    if outputs == list(range(teacher.network.num_keypoints)):
        return "no --keypoint-order"
    return f"--keypoint-order {','.join(map(str, outputs))}"


def _best_order(own: Measured, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the heatmap (K,) that fits each annotated keypoint of people best, each once.

    It minimises the sum of the mean distances. Keypoints with few labels keep their heatmap where
    it is left, and the others get the rest in turn.
    """
    people, affines, keypoints = (
        own.people.select(rows),
        own.probe.image_to_crop[rows],
        own.keypoints[rows],
    )
    num_keypoints = keypoints.shape[1]
    counts = people.is_labelled.sum(axis=0)
    compared = np.flatnonzero(counts >= LEAST_LABELS)
    order = np.full(num_keypoints, -1)
    if len(compared):
        costs = np.full((num_keypoints, num_keypoints), LONGEST_DISTANCE, np.float32)
        for heatmap in range(num_keypoints):
            points = np.repeat(keypoints[:, [heatmap]], num_keypoints, axis=1)
            distance = np.where(people.is_labelled, distances(points, affines, people), 0)
            costs[heatmap] = distance.sum(axis=0) / np.maximum(counts, 1)
        order[compared] = assign(costs[:, compared])
    left = [heatmap for heatmap in range(num_keypoints) if heatmap not in order]
    for keypoint in np.flatnonzero(order < 0).tolist():
        if keypoint in left:
            order[keypoint] = keypoint
            left.remove(keypoint)
    order[order < 0] = left
    return order


def assign(costs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return a row for each column, no row twice, with the smallest sum of costs.

    The assignment is the transport of one unit to each column, which OpenCV solves exactly (its
    earth mover's distance, by the simplex method).

    costs: (R, C), R >= C > 0.
    """
    rows, columns = (np.ones((count, 1), np.float32) for count in costs.shape)
    flow = cv2.EMD(rows, columns, cv2.DIST_USER, cost=np.ascontiguousarray(costs))[2]
    return np.asarray(flow.argmax(axis=0), np.int64)
