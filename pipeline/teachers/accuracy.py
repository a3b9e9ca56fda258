"""The teacher's accuracy on the probe, as it is set, on augmented views and under other settings.

A teacher whose channels or keypoints are in another order, or whose pixels have another scale,
still finds some of the keypoints: only the comparison shows that it is set up wrongly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.coco.people import People
from pipeline.errors import TeacherError
from pipeline.frames.geometry import apply, is_mirroring
from pipeline.teachers.other_settings import Measured, other_frames, other_orders, other_pixels
from pipeline.teachers.person_accuracy import Alternative, person_accuracy
from pipeline.teachers.probe import Probe
from pipeline.teachers.teacher import Teacher
from pipeline.wording import counted

LEAST_PCK = 0.2
"""Smallest median PCK of a teacher."""
LARGEST_GAIN = 0.05
"""Largest gain in PCK@0.05 by another setting that does not refuse the teacher."""
LEAST_PEOPLE = 8
"""Smallest number of labelled people on whom settings are compared."""
_AUGMENTED_PEOPLE = 32


class AugmentedPCK(NamedTuple):
    """Mean PCK of augmented views, and of the plain views of the same people."""

    pck: float
    plain_pck: float
    num_people: int


@dataclass(frozen=True)
class Accuracy:
    """PCK: the share of labelled keypoints within a fifth of the longer box side, by person."""

    median_pck: float
    """NaN: no person of the probe has a labelled keypoint."""
    mean_pck: float
    num_people: int
    """Number of people with labelled keypoints."""
    alternatives: tuple[Alternative, ...]
    """The teacher under other settings, the best first."""
    augmented: AugmentedPCK | None
    """None: there are no augmented views."""

    @property
    def better(self) -> Alternative | None:
        """The best setting that is clearly better than the teacher's own; None: there is none."""
        return next((other for other in self.alternatives if other.is_clear), None)

    def as_lines(self) -> Iterator[str]:
        """Describe it, a sentence each."""
        if not self.num_people:
            yield "no labelled keypoint: accuracy and settings of the teacher cannot be compared"
            return
        yield (
            f"PCK@0.2 against the annotations: median {self.median_pck:.2f}, mean "
            f"{self.mean_pck:.2f} of {counted(self.num_people, 'labelled person')}"
        )
        if self.augmented is not None:
            yield (
                f"PCK@0.2 on augmented views: mean {self.augmented.pck:.2f}, on the plain views of "
                f"the same {counted(self.augmented.num_people, 'person')} "
                f"{self.augmented.plain_pck:.2f}"
            )
        if self.num_people < LEAST_PEOPLE:
            yield "too few labelled people to compare other settings"
        elif self.better is not None:
            yield str(self.better)


def measure_accuracy(teacher: Teacher, probe: Probe, people: People) -> Accuracy:
    """Compare the keypoints with the annotations, under the teacher's and under other settings."""
    shown = people.select(probe.rows)
    labelled = np.flatnonzero(shown.has_labels)
    if not len(labelled):
        return Accuracy(np.nan, np.nan, 0, (), None)
    keypoints, _ = teacher.decode_heatmaps(probe.heatmaps)
    accuracy = person_accuracy(keypoints, probe.image_to_crop, shown)
    own = Measured(teacher, probe, shown, keypoints, accuracy, labelled)
    others: list[Alternative] = []
    if len(labelled) >= LEAST_PEOPLE:
        others = [*other_pixels(own), *other_frames(own), *other_orders(own)]
    pck = accuracy.pck[labelled]
    return Accuracy(
        float(np.median(pck)),
        float(np.mean(pck)),
        len(labelled),
        tuple(sorted(others, key=lambda other: -other.gain)),
        _measure_augmented(own),
    )


def check_settings(accuracy: Accuracy) -> None:
    """Refuse a teacher that would find clearly more under another setting.

    Raises:
        TeacherError: the gain is above 0.05; names the option to give.
    """
    better = accuracy.better
    if better is not None and better.gain > LARGEST_GAIN:
        raise TeacherError(f"{better}; --accept-weak-teacher continues all the same")


def check_accuracy(accuracy: Accuracy) -> None:
    """Refuse a teacher that does not find the annotated keypoints, where there are any.

    Raises:
        TeacherError: the median is below 0.2.
    """
    if np.isnan(accuracy.median_pck) or accuracy.median_pck >= LEAST_PCK:
        return
    raise TeacherError(
        f"the teacher puts {accuracy.median_pck:.2f} of the keypoints within a fifth of the box "
        f"(median of {counted(accuracy.num_people, 'person')}), expected at least {LEAST_PCK}; no "
        "other order of channels or keypoints, pixel scale or heatmap frame is clearly better; "
        "--accept-weak-teacher continues all the same"
    )


def _measure_augmented(own: Measured) -> AugmentedPCK | None:
    """Predict an augmented view of some people; keypoints outside the view do not count."""
    probe = own.probe
    if probe.augmented_crops is None or probe.augmented_image_to_crop is None:
        return None
    rows = own.labelled[:: -(-len(own.labelled) // _AUGMENTED_PEOPLE)]
    people, affines = own.people.select(rows), probe.augmented_image_to_crop[rows]
    height, width = own.teacher.input_size_hw
    truth = apply(affines, people.keypoints[..., :2].astype(np.float64))
    is_inside = ((truth >= 0) & (truth <= (width - 1, height - 1))).all(axis=-1)
    found, _ = own.teacher.decode_heatmaps(
        own.teacher.predict_heatmaps(probe.augmented_crops[rows])
    )
    is_mirrored = is_mirroring(affines)  # there the left of the picture is the person's right
    found[is_mirrored] = found[is_mirrored][:, list(people.skeleton.flip_indices)]
    pck = person_accuracy(found, affines, people, is_inside & people.is_labelled).pck
    seen = np.flatnonzero(~np.isnan(pck))
    if not len(seen):
        return None
    plain = own.accuracy.pck[rows]
    return AugmentedPCK(float(pck[seen].mean()), float(plain[seen].mean()), len(seen))
