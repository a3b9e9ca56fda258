"""Accuracy of keypoints person by person, and the comparison of two settings on the same people."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.frames.geometry import apply, invert
from pipeline.wording import counted

PCK_FRACTION = 0.2
"""Largest distance of a keypoint that counts as found, as a fraction of the longer box side."""
FINE_FRACTION = 0.05
"""The same where settings are compared.

A teacher that is fed BGR finds much of the body all the same: with two teachers and two sets of 64
real people it loses 0.06 to 0.11 of PCK@0.05 (2.5 to 4.8 standard errors of the difference), and
0.02 to 0.09 of PCK@0.2.
"""
LONGEST_DISTANCE = 0.5
"""Distance, in longer box sides, beyond which a keypoint is simply elsewhere."""
CLEAR_ERRORS = 2.0
"""Standard errors of the paired difference beyond which another setting is clearly better."""


@dataclass(frozen=True)
class PersonAccuracy:
    """Accuracy of the keypoints of B people; NaN: none of a person's counts, or was predicted."""

    pck: NDArray[np.float64]  # (B,), share of keypoints within a fifth of the longer box side
    fine_pck: NDArray[np.float64]  # (B,), share within a twentieth

    @classmethod
    def unknown(cls, num_people: int) -> Self:
        """Return the accuracy of people of whom nothing was predicted."""
        return cls(np.full(num_people, np.nan), np.full(num_people, np.nan))

    def fill(self, rows: NDArray[np.int64], measured: Self) -> None:
        """Put in the accuracy that was measured on these rows."""
        self.pck[rows], self.fine_pck[rows] = measured.pck, measured.fine_pck


def person_accuracy(
    keypoints: NDArray[np.float64],
    image_to_crop: NDArray[np.float64],
    people: People,
    is_counted: NDArray[np.bool_] | None = None,
) -> PersonAccuracy:
    """Compare keypoints with those of the people.

    keypoints: (B, K, 2), crop pixels; NaN: not found. image_to_crop: (B, 2, 3).
    is_counted: (B, K), which keypoints count; None: the labelled ones.
    """
    counts = people.is_labelled if is_counted is None else is_counted
    distance = distances(keypoints, image_to_crop, people)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as promised
        pck, fine_pck = (
            ((distance <= fraction) & counts).sum(axis=1) / counts.sum(axis=1)
            for fraction in (PCK_FRACTION, FINE_FRACTION)
        )
    return PersonAccuracy(pck, fine_pck)


def distances(
    keypoints: NDArray[np.float64], image_to_crop: NDArray[np.float64], people: People
) -> NDArray[np.float64]:
    """Return the distances (B, K) from the truth in longer box sides, clipped at half a side."""
    found = apply(invert(image_to_crop), keypoints)
    side = people.bbox_xywh[:, 2:].max(axis=1, keepdims=True)
    distance = np.linalg.norm(found - people.keypoints[..., :2], axis=-1) / side
    return np.minimum(np.nan_to_num(distance, nan=LONGEST_DISTANCE), LONGEST_DISTANCE)


@dataclass(frozen=True)
class Alternative:
    """PCK@0.05 of the teacher under another setting, and as it is set, on the same people."""

    what: str
    option: str
    """The option to give."""
    pck: float
    own_pck: float
    num_people: int
    is_clear: bool
    """Whether it is better by more than ``CLEAR_ERRORS`` standard errors."""

    @property
    def gain(self) -> float:
        return self.pck - self.own_pck

    def __str__(self) -> str:
        return (
            f"with {self.what} PCK@0.05 would be {self.pck:.2f}, and is {self.own_pck:.2f} "
            f"(mean of {counted(self.num_people, 'person')}): give {self.option}"
        )


def compare(what: str, option: str, other: PersonAccuracy, own: PersonAccuracy) -> Alternative:
    """Compare the accuracy of the same people under another setting, pair by pair."""
    rows = ~(np.isnan(other.fine_pck) | np.isnan(own.fine_pck))
    pck, own_pck = other.fine_pck[rows], own.fine_pck[rows]
    gain = pck - own_pck
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    is_clear = bool(gain.mean() > max(CLEAR_ERRORS * error, 0.0))
    return Alternative(what, option, float(pck.mean()), float(own_pck.mean()), len(gain), is_clear)
