"""Views depend on (seed, instance, view) alone and stay within the recipe."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.coco.people import People, Skeleton
from pipeline.frames.geometry import apply, box_to_crop, invert, is_mirroring
from pipeline.frames.views import describe_missing_halves, draw_view, draw_views
from pipeline.settings import ViewRecipe

SIZE_HW = (256, 192)
STILL = ViewRecipe(
    flip_probability=0,
    half_body_probability=0,
    scale_factor=0,
    rotation_probability=0,
    shift_probability=0,
)


def some_people(num_instances: int, num_keypoints: int = 12) -> People:
    random = np.random.default_rng(0)
    box = np.column_stack(
        [random.uniform(0, 300, (num_instances, 2)), random.uniform(20, 200, (num_instances, 2))]
    )
    places = random.random((num_instances, num_keypoints, 2))
    keypoints = np.concatenate(
        [box[:, None, :2] + places * box[:, None, 2:], np.full((*places.shape[:2], 1), 2)], axis=-1
    )
    return People(
        skeleton=Skeleton(
            keypoint_names=tuple(f"k{k}" for k in range(num_keypoints)),
            edges=(),
            flip_indices=tuple(range(num_keypoints)),
            sigmas=(),
            upper_body=tuple(range(6)),
            lower_body=tuple(range(6, num_keypoints)),
        ),
        category_id=1,
        image_id=np.array([1]),
        image_name=("a.jpg",),
        image_size_hw=np.array([[500, 500]]),
        instance_id=np.arange(num_instances) + 10,
        image_index=np.zeros(num_instances, np.int64),
        bbox_xywh=box,
        area=box[:, 2] * box[:, 3],
        keypoints=keypoints.astype(np.float32),
    )


def select(people: People, rows: list[int]) -> People:
    columns = ("instance_id", "image_index", "bbox_xywh", "area", "keypoints")
    return replace(people, **{name: getattr(people, name)[rows] for name in columns})


def test_a_view_does_not_depend_on_the_other_people_or_on_how_many_views_there_are() -> None:
    people = some_people(6)
    together = draw_views(people, ViewRecipe(), 7, 5, SIZE_HW)
    alone = draw_views(select(people, [4, 1]), ViewRecipe(), 7, 3, SIZE_HW)
    assert np.array_equal(alone.image_to_crop, together.image_to_crop[[4, 1], :4])


def test_view_zero_is_the_evaluation_crop_and_another_seed_moves_only_the_others() -> None:
    people = some_people(4)
    one, two = (draw_views(people, ViewRecipe(), seed, 3, SIZE_HW).image_to_crop for seed in (1, 2))
    assert np.array_equal(one[:, 0], box_to_crop(people.bbox_xywh, SIZE_HW))
    assert np.array_equal(one[:, 0], two[:, 0])
    assert (np.abs(one[:, 1:] - two[:, 1:]).max(axis=(2, 3)) > 1e-3).all()


def test_a_recipe_without_any_change_gives_the_evaluation_crop() -> None:
    views = draw_views(some_people(3), STILL, 0, 2, SIZE_HW).image_to_crop
    assert np.allclose(views, views[:, :1], atol=1e-9)


def test_the_recipe_frequencies_and_limits_hold() -> None:
    """Over 4,000 views each share lies within four standard deviations of its probability."""
    people = some_people(500)
    recipe = ViewRecipe(half_body_probability=0)
    views = draw_views(people, recipe, 3, 8, SIZE_HW)
    plain, affines = views.image_to_crop[:, :1], views.image_to_crop[:, 1:]
    linear = affines[..., :2]
    assert np.array_equal(views.is_mirrored[:, 1:], is_mirroring(affines))
    assert views.is_mirrored[:, 1:].mean() == pytest.approx(0.5, abs=0.032)
    angle = np.rad2deg(np.arctan2(linear[..., 1, 0], linear[..., 1, 1]))
    assert (np.abs(angle) > 1e-9).mean() == pytest.approx(0.6, abs=0.032)
    assert 80 < np.abs(angle).max() <= 90 + 1e-9
    factor = np.sqrt(np.abs(np.linalg.det(plain[..., :2])) / np.abs(np.linalg.det(linear)))
    assert 0.65 - 1e-9 <= factor.min() < 0.66
    assert 1.34 < factor.max() <= 1.35 + 1e-9
    centre = apply(invert(affines), np.array([96.0, 128.0])[None, None, None])[:, :, 0]
    box = people.bbox_xywh[:, None]
    shift = np.abs(centre - (box[..., :2] + box[..., 2:] / 2)) / box[..., 2:]
    shift = shift[~views.is_mirrored[:, 1:]]  # (96, 128) is no fixed point of the mirror
    assert shift.max() <= 0.2 + 1e-9
    assert (shift.max(axis=-1) > 1e-9).mean() == pytest.approx(0.3, abs=0.042)


def test_the_centre_shifts_evenly_to_all_sides() -> None:
    """mmpose draws it from U(-1, 1) times the factor, in x and in y; here 0.2 times the box."""
    people = some_people(500)
    recipe = STILL.model_copy(update={"shift_probability": 1.0})
    affines = draw_views(people, recipe, 3, 4, SIZE_HW).image_to_crop[:, 1:]
    centre = apply(invert(affines), np.array([96.0, 128.0])[None, None, None])[:, :, 0]
    box = people.bbox_xywh[:, None]
    shift = (centre - (box[..., :2] + box[..., 2:] / 2)) / box[..., 2:]
    quantiles = np.quantile(shift, [0, 0.25, 0.5, 0.75, 1], axis=(0, 1))
    even = np.array([-0.2, -0.1, 0, 0.1, 0.2])[:, None]
    np.testing.assert_allclose(quantiles, np.tile(even, 2), atol=0.02)


def test_a_flipped_view_is_the_mirror_image_of_the_view_that_is_not() -> None:
    """The point x of the crop becomes 191 - x, whatever else the recipe changed."""
    people = some_people(8)
    plain, flipped = (
        draw_views(people, ViewRecipe(flip_probability=share), 2, 4, SIZE_HW).image_to_crop[:, 1:]
        for share in (0.0, 1.0)
    )
    points = people.keypoints[:, None, :, :2]
    expected = apply(plain, points) * [-1, 1] + [191, 0]
    np.testing.assert_allclose(apply(flipped, points), expected, atol=1e-9)


def test_a_half_body_view_is_centred_on_one_half_and_holds_it() -> None:
    people = some_people(40)
    recipe = STILL.model_copy(update={"half_body_probability": 1.0})
    affines = draw_views(people, recipe, 0, 1, SIZE_HW).image_to_crop[:, 1]
    centre = apply(invert(affines), np.array([96.0, 128.0])[None, None])[:, 0]
    halves = np.stack([people.keypoints[:, :6, :2].mean(1), people.keypoints[:, 6:, :2].mean(1)], 1)
    distance = np.abs(halves - centre[:, None]).max(axis=-1)
    chosen = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 1e-3
    assert 8 < chosen.sum() < 32  # a fair coin over 40 people


def test_a_half_body_view_is_half_as_large_again_as_its_keypoints() -> None:
    """HRNet's padding of 1.5: keypoints of 45 x 60 pixels in a view of 67.5 x 90."""
    people = some_people(1)
    keypoints = people.keypoints[0].copy()
    corners = [[10, 20], [55, 80], [20, 70], [40, 30], [30, 50], [50, 25]]
    keypoints[:, :2] = corners + corners  # both halves alike
    recipe = STILL.model_copy(update={"half_body_probability": 1.0})
    view = draw_view(recipe, 0, 1, 1, people.bbox_xywh[0], keypoints, people.skeleton, SIZE_HW)
    np.testing.assert_allclose(view[:, :2], np.eye(2) * 256 / 90)


def test_half_body_needs_more_than_eight_labelled_keypoints_and_two_halves() -> None:
    people = some_people(1)
    recipe = STILL.model_copy(update={"half_body_probability": 1.0})
    plain = box_to_crop(people.bbox_xywh[0], SIZE_HW)
    keypoints = people.keypoints[0].copy()
    keypoints[8:, 2] = 0
    for points, skeleton in (
        (keypoints, people.skeleton),
        (people.keypoints[0], replace(people.skeleton, upper_body=(), lower_body=())),
    ):
        view = draw_view(recipe, 0, 1, 1, people.bbox_xywh[0], points, skeleton, SIZE_HW)
        assert np.allclose(view, plain)


def test_missing_halves_are_told_only_where_the_recipe_wants_half_bodies() -> None:
    skeleton = some_people(1).skeleton
    without = replace(skeleton, upper_body=(), lower_body=())
    assert describe_missing_halves(skeleton, ViewRecipe()) is None
    assert describe_missing_halves(without, STILL) is None
    note = describe_missing_halves(without, ViewRecipe())
    assert note is not None
    assert note.startswith("half-body views are off: these keypoints have no upper and lower body")


def test_keypoints_on_one_spot_do_not_squash_a_half_body_view() -> None:
    people = some_people(1)
    keypoints = people.keypoints[0].copy()
    keypoints[:, :2] = 50
    recipe = ViewRecipe(half_body_probability=1.0)
    view = draw_view(recipe, 0, 1, 1, people.bbox_xywh[0], keypoints, people.skeleton, SIZE_HW)
    assert np.isfinite(invert(view)).all()
