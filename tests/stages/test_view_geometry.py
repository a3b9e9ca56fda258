"""An independent proof of the views' geometry: a real teacher sees mirrored people where they are.

A wrong affine, or one that is not the crop's, moves what is seen in mirrored views against what is
seen in the others, since a mirror turns the error's sign round in the image. No part of the code
under test knows where the people really are; the annotators do.

Single keypoints scatter by some pixels, so what is compared is the mean over some 700 (person,
keypoint) pairs of coco_sample and 80 people of LSPET: of those with confidence above 0.5 in
mirrored and unmirrored augmented views, labelled, inside the crop and at most 15 crop pixels off
(left taken for right says nothing of half pixels). Within a pair the views of each kind are
averaged first, so that the annotator's own error cancels. The standard error is 0.1 crop pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.frames.geometry import Affine, apply, compose, invert
from pipeline.teacher_store.reader import StoredViews, TeacherStore

pytestmark = pytest.mark.shared
LARGEST_DIFFERENCE = 0.3  # crop pixels
CONFIDENT = 0.5
NEAR = 15.0  # crop pixels


@dataclass(frozen=True)
class Seen:
    """All augmented views of a store with the truth, as a student would pair them."""

    views: StoredViews  # B = N * (V - 1)
    truth: NDArray[np.float64]  # (B, K, 3) as (x, y, visibility), image pixels; swapped if mirrored
    flip_indices: list[int]
    num_people: int
    size_wh: tuple[int, int]


@dataclass(frozen=True)
class Agreement:
    """How what the teacher sees differs between mirrored and unmirrored views."""

    difference: NDArray[np.float64]  # (2,) as (x, y), crop pixels along the image's axes
    found_mirrored: float
    """Share of the confident keypoints that lie near the truth."""
    found_unmirrored: float

    def holds(self) -> bool:
        return bool(
            np.abs(self.difference).max() <= LARGEST_DIFFERENCE
            and min(self.found_mirrored, self.found_unmirrored) >= 0.6
            and abs(self.found_mirrored - self.found_unmirrored) <= 0.1
        )


def read_seen(path: Any) -> Seen:
    store = TeacherStore.open(path)
    rows, views = np.divmod(np.arange(store.status.size), store.num_views)
    rows, views = rows[views > 0], views[views > 0]
    stored = store.read(rows, views)
    flip_indices = list(store.people.skeleton.flip_indices)
    truth = store.people.keypoints[rows].astype(np.float64)
    truth[stored.is_mirrored] = truth[stored.is_mirrored][:, flip_indices]
    height, width = store.input_size_hw
    return Seen(stored, truth, flip_indices, store.people.num_instances, (width, height))


def measure(everyone: list[Seen]) -> Agreement:
    differences, found = [], []
    for seen in everyone:
        offsets, is_near, is_confident = _offsets(seen)
        mirrored = seen.views.is_mirrored
        # Back to the person's own left and right, so that a pair is one keypoint of one person.
        for values in (offsets, is_near, is_confident):
            values[mirrored] = values[mirrored][:, seen.flip_indices]
        shape = (seen.num_people, -1, len(seen.flip_indices))
        offsets, near = offsets.reshape(*shape, 2), is_near.reshape(shape)
        kinds = [near & side.reshape(*shape[:2], 1) for side in (mirrored, ~mirrored)]
        in_both = kinds[0].any(axis=1) & kinds[1].any(axis=1)
        means = [
            np.where(kind[..., None], offsets, 0).sum(axis=1)[in_both]
            / kind.sum(axis=1)[in_both][:, None]
            for kind in kinds
        ]
        differences.append(means[0] - means[1])
        found.append(
            [(is_near[side].sum(), is_confident[side].sum()) for side in (mirrored, ~mirrored)]
        )
    near_and_confident = np.sum(found, axis=0)  # (2, 2)
    shares = near_and_confident[:, 0] / near_and_confident[:, 1]
    pairs = np.concatenate(differences)
    mean = pairs.mean(axis=0) if len(pairs) else np.full(2, np.inf)
    return Agreement(mean, float(shares[0]), float(shares[1]))


def _offsets(
    seen: Seen,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (B, K, 2) signed offsets, and which keypoints count as near and as confident."""
    image_to_crop, truth = seen.views.image_to_crop, seen.truth
    in_image = apply(invert(image_to_crop), seen.views.keypoints)
    crop_pixels = np.sqrt(np.abs(np.linalg.det(image_to_crop[..., :2])))[:, None, None]
    offsets = (in_image - truth[..., :2]) * crop_pixels
    in_crop = apply(image_to_crop, truth[..., :2])
    is_inside = ((in_crop >= 0) & (in_crop <= np.array(seen.size_wh) - 1)).all(axis=-1)
    is_confident = (seen.views.confidence > CONFIDENT) & (truth[..., 2] > 0) & is_inside
    is_near = is_confident & (np.linalg.norm(offsets, axis=-1) <= NEAR)
    return offsets, is_near, is_confident


@pytest.fixture(scope="module")
def everyone(real_coco: Any, real_lspet: Any) -> list[Seen]:
    return [read_seen(real_coco.store), read_seen(real_lspet.store)]


def test_mirrored_views_see_people_where_the_others_do(everyone: list[Seen]) -> None:
    """Mean signed offset from the truth: equal within 0.3 crop px in x and in y."""
    agreement = measure(everyone)
    assert np.abs(agreement.difference).max() <= LARGEST_DIFFERENCE
    assert agreement.holds(), agreement


def with_affines(seen: Seen, error: Affine, is_wrong: NDArray[np.bool_]) -> Seen:
    """Let a store believe in crops that are another ``error`` away from those that were seen."""
    believed = seen.views.image_to_crop.copy()
    believed[is_wrong] = compose(error, believed[is_wrong])
    return replace(seen, views=replace(seen.views, image_to_crop=believed))


def half_a_pixel(seen: Seen) -> Seen:
    error = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]])
    return with_affines(seen, error, seen.views.is_mirrored)


def half_a_pixel_back(seen: Seen) -> Seen:
    error = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, 0.0]])
    return with_affines(seen, error, seen.views.is_mirrored)


def mirror_about_the_width(seen: Seen) -> Seen:
    """x' = W - x in place of W - 1 - x."""
    error = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    return with_affines(seen, error, seen.views.is_mirrored)


def scale_from_width_less_one(seen: Seen) -> Seen:
    """Crops cut as if a width of W pixels spanned W - 1, as half of the old toolkits do."""
    width, height = seen.size_wh
    error = np.array([[(width - 1) / width, 0, 0], [0, (height - 1) / height, 0]])
    return with_affines(seen, error, np.ones(len(seen.truth), np.bool_))


def the_other_heatmap_frame(seen: Seen) -> Seen:
    """Points decoded as half-pixel, from a teacher whose frame is msra."""
    points = seen.views.keypoints + np.float32(1.5)
    return replace(seen, views=replace(seen.views, keypoints=points))


def no_swap(seen: Seen) -> Seen:
    """Left stays left although the view is mirrored."""
    mirrored, truth = seen.views.is_mirrored, seen.truth.copy()
    truth[mirrored] = truth[mirrored][:, seen.flip_indices]
    return replace(seen, truth=truth)


def swapped_axes(seen: Seen) -> Seen:
    return replace(seen, views=replace(seen.views, keypoints=seen.views.keypoints[..., ::-1]))


@pytest.mark.parametrize(
    "error",
    [
        half_a_pixel,
        half_a_pixel_back,
        mirror_about_the_width,
        scale_from_width_less_one,
        the_other_heatmap_frame,
        no_swap,
        swapped_axes,
    ],
)
def test_each_seeded_error_breaks_the_proof(
    everyone: list[Seen], error: Callable[[Seen], Seen]
) -> None:
    assert not measure([error(seen) for seen in everyone]).holds()
