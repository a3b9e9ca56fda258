"""A box with an image is enough: to be cropped, seen by a teacher, predicted and stored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.coco.people import People, people_of_rows
from pipeline.coco.poses import NO_ANNOTATION
from pipeline.errors import TeacherError
from pipeline.frames.geometry import box_to_crop
from pipeline.frames.views import draw_views
from pipeline.prediction.estimators import TeacherEstimator, predict_people
from pipeline.settings import ViewRecipe
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import acquire_lease
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.writer import NewTeacher, begin_teacher
from pipeline.teachers.checks import check_teacher
from pipeline.teachers.probe import take_probe
from store_schemas.formats import DEFAULT_PROFILE, PROFILES
from store_schemas.manifest import digest_of_images
from tests.support.dotted_people import (
    CELLS_HW,
    NO_PAIRS,
    SIZE_HW,
    DotNetwork,
    Dotted,
    draw_dotted,
    teacher_of,
)


@pytest.fixture(scope="module")
def dotted(tmp_path_factory: pytest.TempPathFactory) -> Dotted:
    return draw_dotted(tmp_path_factory.mktemp("dotted"))


@pytest.fixture(scope="module")
def boxed(dotted: Dotted) -> People:
    """The dotted people as photographs with boxes, which no annotation file names."""
    people = dotted.people
    nobody = people_of_rows(people, np.zeros(0, np.int64))
    images = replace(
        nobody,
        category_id=1,
        image_id=np.arange(1, len(people.image_name) + 1),
        image_name=people.image_name,
        image_size_hw=people.image_size_hw,
    )
    scores = np.linspace(1, 0.5, people.num_instances)
    return images.with_boxes(people.image_index, people.bbox_xywh, scores)


def test_a_person_in_a_box_has_an_id_an_area_and_no_labelled_keypoint(boxed: People) -> None:
    assert boxed.image_id.tolist() == list(range(1, 13))
    assert boxed.instance_id.tolist() == list(range(1, 25))
    assert boxed.area.tolist() == [96 * 128] * 24
    np.testing.assert_array_equal(
        boxed.keypoints, np.tile(np.array([np.nan, np.nan, 0], np.float32), (24, 4, 1)), strict=True
    )
    assert not boxed.is_labelled.any()
    assert len(boxed.ignored.annotation_id) == 0


def test_a_box_without_a_score_counts_1_and_rows_keep_their_scores(boxed: People) -> None:
    plain = boxed.with_boxes(boxed.image_index[:2], boxed.bbox_xywh[:2])
    assert plain.box_score is not None
    assert plain.box_score.tolist() == [1, 1]
    chosen = people_of_rows(boxed, np.array([0, 23]))
    assert chosen.box_score is not None
    assert chosen.box_score.tolist() == [1, 0.5]


def test_views_are_drawn_as_of_the_annotated_person_but_for_half_bodies(
    dotted: Dotted, boxed: People
) -> None:
    """No half-body view without keypoints, and one setting never changes another's outcome."""
    annotated = replace(dotted.people, instance_id=boxed.instance_id)
    whole = draw_views(annotated, ViewRecipe(half_body_probability=0), 3, 6, SIZE_HW)
    views = draw_views(boxed, ViewRecipe(half_body_probability=1), 3, 6, SIZE_HW)
    np.testing.assert_array_equal(views.image_to_crop, whole.image_to_crop)
    np.testing.assert_array_equal(views.image_to_crop[:, 0], box_to_crop(boxed.bbox_xywh, SIZE_HW))


def test_poses_are_those_of_the_annotated_people_with_the_score_of_the_box(
    dotted: Dotted, boxed: People
) -> None:
    estimator = TeacherEstimator(teacher_of(DotNetwork()), NO_PAIRS)
    expected = predict_people(estimator, dotted.people, dotted.folder)
    found = predict_people(estimator, boxed, dotted.folder, batch_size=5)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert np.abs(found.keypoints - dotted.people.keypoints[..., :2]).max() < 2
    assert found.image_id.tolist() == (np.arange(24) // 2 + 1).tolist()
    assert found.annotation_id.tolist() == [NO_ANNOTATION] * 24
    assert found.box_score.tolist() == np.linspace(1, 0.5, 24).tolist()


def test_a_teacher_is_checked_on_them_but_for_its_accuracy(dotted: Dotted, boxed: People) -> None:
    said: list[str] = []
    profile = PROFILES[DEFAULT_PROFILE]
    for network, fails in ((DotNetwork(), None), (DotNetwork(shift_cells=1), "mirrored maps")):
        teacher = teacher_of(network)
        probe = take_probe(teacher, boxed, dotted.folder, dotted.image_to_crop)
        if fails:
            with pytest.raises(TeacherError, match=fails):
                check_teacher(teacher, boxed, probe, profile)
        else:
            check_teacher(teacher, boxed, probe, profile, say=said.append)
    assert said[1] == (
        "probe: no labelled keypoint: accuracy and settings of the teacher cannot be compared"
    )


def test_a_few_people_without_labels_do_not_change_the_measured_accuracy(dotted: Dotted) -> None:
    keypoints = dotted.people.keypoints.copy()
    keypoints[::3] = (np.nan, np.nan, 0)
    people = replace(dotted.people, keypoints=keypoints)
    teacher = teacher_of(DotNetwork())
    said: list[str] = []
    probe = take_probe(teacher, people, dotted.folder, dotted.image_to_crop)
    check_teacher(teacher, people, probe, PROFILES[DEFAULT_PROFILE], say=said.append)
    assert said[1] == (
        "probe: PCK@0.2 against the annotations: median 1.00, mean 1.00 of 16 labelled people"
    )


def test_a_store_holds_them_and_gives_them_back(
    dotted: Dotted, boxed: People, tmp_path: Path
) -> None:
    drawn = draw_views(boxed, ViewRecipe(), 0, 1, SIZE_HW)
    teacher = teacher_of(DotNetwork())
    probe = take_probe(teacher, boxed, dotted.folder, drawn.image_to_crop)
    points, peaks = teacher.decode_heatmaps(probe.heatmaps)
    outputs = np.zeros((24, 2, 4, 4), np.float32)
    outputs[..., 0], outputs[:, 0, :, 1] = 1 / 255, peaks
    outputs[:, 0, :, 2:] = points
    digests = np.zeros((12, 32), np.uint8)
    folder = LocalFolder(tmp_path / "teacher.zarr")
    lease = acquire_lease(folder)
    views = ViewPlan(drawn.image_to_crop, drawn.is_mirrored, SIZE_HW, 0, {"padding": 1.25})
    dots = NewTeacher(
        name="dots",
        identity={"sha256": "a" * 64},
        recipe={},
        provenance={},
        heatmap_size_hw=CELLS_HW,
        threshold=0.01,
    )
    writer = begin_teacher(folder, lease.run_id, boxed, digests, views, dots)
    images = digest_of_images(digests, boxed.image_index)
    heat = np.zeros((24, 2, 4, *CELLS_HW), np.uint8)
    writer.write_shard(0, heat, outputs, np.ones((24, 2), np.uint8), images)
    writer.finish()
    lease.release()

    store = TeacherStore.open(tmp_path / "teacher.zarr")
    for name in ("instance_id", "image_index", "bbox_xywh", "area", "keypoints", "image_id"):
        found, given = getattr(store.people, name), getattr(boxed, name)
        np.testing.assert_array_equal(found, given, strict=True)
    assert store.people.image_name == boxed.image_name
    read = store.read(np.arange(24), np.zeros(24, np.int64))
    np.testing.assert_array_equal(read.keypoints, points.astype(np.float32))
