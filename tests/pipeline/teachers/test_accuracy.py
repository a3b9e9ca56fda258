"""Laws of the accuracy on the probe: a mis-set teacher is told from a right one, and by what."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from pipeline.coco.people import People
from pipeline.errors import TeacherError
from pipeline.frames.views import draw_views
from pipeline.settings import TeacherSettings, ViewRecipe
from pipeline.teachers.accuracy import (
    Accuracy,
    check_accuracy,
    check_settings,
    measure_accuracy,
)
from pipeline.teachers.checks import check_teacher
from pipeline.teachers.network import Prediction
from pipeline.teachers.other_settings import assign
from pipeline.teachers.person_accuracy import Alternative, PersonAccuracy, compare, person_accuracy
from pipeline.teachers.probe import probe_rows, take_probe
from pipeline.teachers.teacher import Teacher
from store_schemas.formats import PROFILES
from tests.support.dotted_people import (
    NO_PAIRS,
    NUM_PEOPLE,
    PAIRS,
    SIZE_HW,
    DotNetwork,
    Dotted,
    Maps,
    teacher_of,
)

DEFAULT = PROFILES["default"]


def by_name(accuracy: Accuracy) -> dict[str, float]:
    return {other.what: other.pck for other in accuracy.alternatives}


def with_labels_of(people: People, rows: Sequence[int]) -> People:
    """Return the people with the labels of these rows only."""
    keypoints = people.keypoints.copy()
    keypoints[np.setdiff1d(np.arange(len(keypoints)), rows)] = (np.nan, np.nan, 0)
    return replace(people, keypoints=keypoints)


def in_order(*order: int) -> DotNetwork:
    """Return a network whose output k is the keypoint ``order[k]``."""
    return DotNetwork(change=lambda maps: maps[:, list(order)])


def test_a_good_teacher_finds_all_and_no_setting_is_better(dotted: Dotted) -> None:
    teacher = teacher_of(DotNetwork())
    accuracy = measure_accuracy(teacher, dotted.probe(teacher), dotted.with_pairs(PAIRS))
    assert (accuracy.median_pck, accuracy.mean_pck, accuracy.num_people) == (1, 1, NUM_PEOPLE)
    assert accuracy.better is None
    assert by_name(accuracy) == {
        "channels in BGR order": 0,
        "pixels 255 times as large": 0,
        "heatmap frame msra": 1,
        "heatmap frame udp": 1,
        "left and right exchanged": 0,
        "keypoints in the order that fits best": 1,
    }
    check_settings(accuracy)
    check_accuracy(accuracy)
    assert list(accuracy.as_lines()) == [
        "PCK@0.2 against the annotations: median 1.00, mean 1.00 of 24 labelled people"
    ]


BEST = "keypoints in the order that fits best"


@pytest.mark.parametrize(
    ("network", "settings", "what", "option"),
    [
        (DotNetwork(), {"channel_order": "bgr"}, "channels in RGB order", "--channel-order rgb"),
        (DotNetwork(), {"scale": 1.0}, "pixels a 255th as large", "--pixel-scale 0.00392157"),
        (
            DotNetwork(),
            {"scale": 1 / 255**2},
            "pixels 255 times as large",
            "--pixel-scale 0.00392157",
        ),
        (in_order(*PAIRS), {}, "left and right exchanged", "--keypoint-order 1,0,3,2"),
        # output k is keypoint (2, 0, 3, 1)[k], so keypoint 0 is output 1, 1 is 3, 2 is 0, 3 is 2
        (in_order(2, 0, 3, 1), {}, BEST, "--keypoint-order 1,3,0,2"),
        (DotNetwork(), {"keypoint_order": (1, 2, 3, 0)}, BEST, "no --keypoint-order"),
        (in_order(2, 0, 3, 1), {"keypoint_order": (3, 1, 0, 2)}, BEST, "--keypoint-order 1,3,0,2"),
    ],
)
def test_a_mis_set_teacher_is_refused_by_the_option_to_give(
    dotted: Dotted, network: DotNetwork, settings: dict[str, Any], what: str, option: str
) -> None:
    """Before its frame or its units are blamed, which the same mistake may spoil."""
    teacher = teacher_of(network, **settings)
    probe, people = dotted.probe(teacher), dotted.with_pairs(PAIRS)
    said: list[str] = []
    with pytest.raises(
        TeacherError,
        match=rf"^with {what} PCK@0\.05 would be 1\.00, and is 0\.\d\d \(mean of 24 people\): give "
        rf"{option}; --accept-weak-teacher continues all the same$",
    ):
        check_teacher(teacher, people, probe, DEFAULT, say=said.append)
    assert said[-1].startswith("probe: with ")
    mended = corrected(teacher, option)
    assert measure_accuracy(mended, dotted.probe(mended), people).better is None


def corrected(teacher: Teacher, option: str) -> Teacher:
    """Return the teacher with the option given that was advised."""
    name, _, value = option.partition(" ")
    changes: dict[str, dict[str, Any]] = {
        "--channel-order": {"channel_order": value},
        "--pixel-scale": {"scale": value},
        "--keypoint-order": {"keypoint_order": value.split(",")},
        "no": {"keypoint_order": None},
    }
    settings = {**teacher.settings.model_dump(), **changes[name]}
    return Teacher(teacher.network, TeacherSettings.model_validate(settings))


def test_an_accepted_teacher_is_told_all_the_same(dotted: Dotted) -> None:
    teacher = teacher_of(in_order(2, 0, 3, 1))
    said: list[str] = []
    check_teacher(
        teacher, dotted.people, dotted.probe(teacher), DEFAULT, accept_weak=True, say=said.append
    )
    assert said[2].startswith("probe: with keypoints in the order that fits best PCK@0.05 would be")
    assert said[-1].startswith("probe: took ")


def first_alone(maps: Maps) -> Maps:
    return maps * np.array([1, 0, 0, 0], np.float32)[:, None, None]


def test_unlabelled_keypoints_do_not_count(dotted: Dotted) -> None:
    teacher = teacher_of(DotNetwork(change=first_alone))
    keypoints = dotted.people.keypoints.copy()
    keypoints[:, 1:] = (np.nan, np.nan, 0)
    people = replace(dotted.people, keypoints=keypoints)
    assert measure_accuracy(teacher, dotted.probe(teacher), people).median_pck == 1


def test_keypoints_without_labels_keep_their_heatmap_where_it_is_left(dotted: Dotted) -> None:
    keypoints = dotted.people.keypoints.copy()
    keypoints[:, 2:] = (np.nan, np.nan, 0)
    people = replace(dotted.people, keypoints=keypoints)
    guess = "2,0,1,3 (a guess for left_foot, which have no labels)"
    for network, order in ((in_order(1, 0, 2, 3), "1,0,2,3"), (in_order(1, 2, 0, 3), guess)):
        teacher = teacher_of(network)
        better = measure_accuracy(teacher, dotted.probe(teacher), people).better
        assert better is not None
        assert better.option == f"--keypoint-order {order}"


def test_a_teacher_that_finds_little_is_refused(dotted: Dotted) -> None:
    teacher = teacher_of(DotNetwork(change=lambda maps: maps[:, :, ::-1]))
    accuracy = measure_accuracy(teacher, dotted.probe(teacher), dotted.people)
    with pytest.raises(
        TeacherError,
        match=r"puts 0\.00 of .* \(median of 24 people\), expected at least 0\.2; no other order "
        r"of channels or keypoints, .*--accept-weak-teacher continues all the same",
    ):
        check_accuracy(replace(accuracy, alternatives=()))
    check_accuracy(replace(accuracy, median_pck=0.2))


@pytest.mark.parametrize(("gain", "is_refused"), [(0.04, False), (0.06, True)])
def test_a_small_gain_is_said_and_a_large_one_is_refused(gain: float, is_refused: bool) -> None:
    def accuracy(is_clear: bool) -> Accuracy:
        other = Alternative("w", "--option x", 0.7 + gain, 0.7, 64, is_clear)
        return Accuracy(0.7, 0.7, 64, (other,), None)

    assert "give --option x" in list(accuracy(True).as_lines())[-1]
    assert len(list(accuracy(False).as_lines())) == 1
    check_settings(accuracy(False))
    if is_refused:
        with pytest.raises(TeacherError, match="give --option x; --accept-weak-teacher"):
            check_settings(accuracy(True))
    else:
        check_settings(accuracy(True))


@pytest.mark.parametrize(("errors", "is_clear"), [(1.9, False), (2.1, True)])
def test_a_setting_is_clearly_better_beyond_two_standard_errors(
    errors: float, is_clear: bool
) -> None:
    """Of the paired difference, with the variance of a sample."""
    noise = np.tile([-1.0, 1.0], 8)
    error = np.sqrt((noise**2).sum() / 15) / 4
    gain = 0.1 * (noise + errors * error)
    own = PersonAccuracy(np.full(17, 0.9), np.linspace(0, 0.8, 17))
    other = PersonAccuracy(np.full(17, 0.1), own.fine_pck + np.append(gain, np.nan))
    found = compare("a", "--b", other, own)
    assert (found.is_clear, found.num_people) == (is_clear, 16)
    assert found.gain == pytest.approx(0.1 * errors * error)
    assert not compare("a", "--b", own, own).is_clear


def test_pck_is_measured_in_longer_box_sides(dotted: Dotted) -> None:
    """The boxes are 96 x 128, so a fifth of the longer side is 25.6 pixels, a twentieth 6.4."""
    people = dotted.people.select(np.arange(3))
    identity = np.tile(np.eye(2, 3), (3, 1, 1))
    points = people.keypoints[..., :2].astype(np.float64)
    points[0, 0, 0] += 25.5
    points[0, 1:3, 0] += (6.3, -6.5)
    points[1, 0, 1] += 25.7
    points[2, 0] = np.nan
    found = person_accuracy(points, identity, people)
    np.testing.assert_allclose(found.pck, [1, 0.75, 0.75])
    np.testing.assert_allclose(found.fine_pck, [0.5, 0.75, 0.75])


@pytest.mark.parametrize("seed", range(20))
def test_an_assignment_is_the_best_of_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = int(generator.integers(1, 7))
    columns = int(generator.integers(1, rows + 1))
    costs = generator.uniform(0, 0.5, (rows, columns)).astype(np.float32)
    found = assign(costs)
    assert len(set(found.tolist())) == columns
    best = min(
        sum(costs[row, column] for column, row in enumerate(order))
        for order in permutations(range(rows), columns)
    )
    assert costs[found, np.arange(columns)].sum() == pytest.approx(best, abs=1e-5)


def test_augmented_views_are_measured_where_they_show_the_keypoints(dotted: Dotted) -> None:
    """A mirrored view shows a left hand where a right one is expected."""
    recipe = ViewRecipe(half_body_probability=0, flip_probability=1)
    views = draw_views(dotted.people, recipe, 0, 3, SIZE_HW)
    teacher = teacher_of(DotNetwork())
    probe = take_probe(teacher, dotted.people, dotted.folder, views.image_to_crop)
    assert probe.augmented_image_to_crop is not None
    expected = views.image_to_crop[np.arange(NUM_PEOPLE), 1 + np.arange(NUM_PEOPLE) % 3]
    np.testing.assert_array_equal(probe.augmented_image_to_crop, expected)
    accuracy = measure_accuracy(teacher, probe, dotted.people)
    assert accuracy.augmented is not None
    assert accuracy.augmented.pck > 0.9
    assert accuracy.augmented[1:] == (1, NUM_PEOPLE)
    assert list(accuracy.as_lines())[1] == (
        f"PCK@0.2 on augmented views: mean {accuracy.augmented.pck:.2f}, on the plain views of the "
        "same 24 people 1.00"
    )
    exchanged = measure_accuracy(teacher, probe, dotted.with_pairs(PAIRS)).augmented
    assert exchanged is not None
    assert exchanged.pck < 0.1


def test_too_few_labelled_people_compare_nothing(dotted: Dotted) -> None:
    teacher = teacher_of(in_order(2, 0, 3, 1))
    people = with_labels_of(dotted.people, range(7))
    accuracy = measure_accuracy(teacher, dotted.probe(teacher), people)
    assert (accuracy.num_people, accuracy.alternatives) == (7, ())
    assert list(accuracy.as_lines())[-1] == "too few labelled people to compare other settings"
    eight = with_labels_of(dotted.people, range(8))
    assert measure_accuracy(teacher, dotted.probe(teacher), eight).better is not None


def test_without_any_label_nothing_is_compared_and_that_is_said(dotted: Dotted) -> None:
    teacher = teacher_of(DotNetwork())
    accuracy = measure_accuracy(teacher, dotted.probe(teacher), with_labels_of(dotted.people, []))
    assert list(accuracy.as_lines()) == [
        "no labelled keypoint: accuracy and settings of the teacher cannot be compared"
    ]
    check_settings(accuracy)
    check_accuracy(accuracy)


def test_a_probe_has_as_many_labelled_people_whoever_is_beside_them(dotted: Dotted) -> None:
    people = with_labels_of(dotted.people, range(0, 24, 3))
    rows = probe_rows(people, 4)
    assert people.has_labels[rows].sum() >= 4
    assert len(rows) == 4  # one of all people is one of the labelled
    assert len(probe_rows(people, 5)) == 6
    assert probe_rows(people, 24).tolist() == list(range(24))
    assert probe_rows(dotted.people, 4).tolist() == [0, 8, 15, 23]
    assert probe_rows(with_labels_of(dotted.people, []), 4).tolist() == [0, 8, 15, 23]


def test_an_order_puts_heatmaps_tokens_and_names_in_their_places() -> None:
    class Tokened(DotNetwork):
        token_shape = (1, (2, 1))
        keypoint_names = ("a", "b", "c", "d")

        def forward(self, images: Maps, with_tokens: bool = False) -> Prediction:
            maps = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
            tokens = {"keypoint": maps[..., 0].copy(), "visual": np.zeros((1, 2, 1), np.float32)}
            return Prediction(np.repeat(maps, len(images), 0), tokens if with_tokens else None)

    crops = np.zeros((1, *SIZE_HW, 3), np.uint8)
    teacher = teacher_of(Tokened(), keypoint_order=(2, 0, 3), batch_size=1)
    found = teacher.predict(crops, NO_PAIRS, with_tokens=True)
    assert found.heatmaps.ravel().tolist() == [2, 0, 3]
    assert found.tokens is not None
    assert found.tokens["keypoint"].ravel().tolist() == [2, 0, 3]
    assert found.tokens["visual"].shape == (1, 2, 1)
    assert teacher.keypoint_names == ("c", "a", "d")
    assert teacher.num_keypoints == 3
    assert teacher.identity()["keypoint_order"] == [2, 0, 3]
    assert "keypoint_order" not in teacher_of(Tokened()).identity()


@pytest.mark.parametrize("order", [(0, 0, 1), (4,), ()])
def test_an_order_of_outputs_that_there_are_not_is_refused(order: tuple[int, ...]) -> None:
    with pytest.raises(TeacherError, match=r"must name outputs of the teacher, 0 to 3, none .*got"):
        teacher_of(DotNetwork(), keypoint_order=order)
