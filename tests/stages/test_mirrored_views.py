"""Laws of the mirror images of stored views: what a flip-averaged teacher would say of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.coco.image_files import decode_image
from pipeline.errors import ConfigError
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import apply
from pipeline.settings import TeacherSettings
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers import Teacher, open_teacher
from pipeline.training.batch import TrainingBatch
from pipeline.training.settings import MirroredViewSettings, ReplayedViewSettings, TeacherField
from pipeline.training.store_sources import open_store_views
from pipeline.training.view_order import ViewBatch
from stages.cache_teacher import cache_teacher

HEATMAPS = frozenset[TeacherField]({"heatmaps"})
MIRROR = MirroredViewSettings()
STUDENT = (128, 96)
FLOAT16 = 1e-3  # heat below 1 is stored as float16


def make_averaged_store(inputs: Any, shift: int = 1, **changes: object) -> Teacher:
    """Write a store of a teacher that is not symmetric, with a flip test, and open the teacher."""
    inputs.write_teacher(is_symmetric=False)
    flip = {"teacher_settings__flip_test": True, "teacher_settings__flip_shift": shift}
    config = inputs.config(profile="lossless-float16", **flip, **changes)
    cache_teacher(config)
    settings = config.teacher_settings.model_dump()
    return open_teacher(config.teacher, TeacherSettings(**settings))


@pytest.fixture(scope="module")
def rows_and_views() -> ViewBatch:
    return ViewBatch(np.array([0, 1, 2, 3, 4]), np.array([1, 2, 2, 1, 2]))


def batch_of(inputs: Any, views: ViewBatch, data: Any, size_hw: tuple[int, int]) -> TrainingBatch:
    images = None if data.from_crops else inputs.images
    return open_store_views(inputs.store, images, data, HEATMAPS).dataset(size_hw)[views]


def mirrored(views: ViewBatch, num_views: int = 2) -> ViewBatch:
    return ViewBatch(views.instances, views.views + num_views)


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_mirrored_targets_are_those_of_the_live_teacher_on_the_mirrored_crop(
    inputs: Any, rows_and_views: ViewBatch, shift: int
) -> None:
    """Exact to float16, but for the columns that a shift of the flip test loses."""
    teacher = make_averaged_store(inputs, shift)
    store = TeacherStore.open(inputs.store)
    flips = store.people.skeleton.flip_indices
    crops = []
    for row, view in zip(*map(np.ndarray.tolist, rows_and_views), strict=True):
        name = store.people.image_name[store.people.image_index[row]]
        affine = store.read_image_to_crop([row], [view])[0]
        crops.append(warp_crop(decode_image(inputs.images / name), affine, (256, 192)))
    live = teacher.predict_and_decode(np.stack(crops)[:, :, ::-1].copy(), flips)

    batch = batch_of(inputs, mirrored(rows_and_views), MIRROR, STUDENT)
    assert batch.teacher is not None
    assert batch.teacher.heatmaps is not None
    heat = batch.teacher.heatmaps.numpy().astype(np.float32)
    np.testing.assert_allclose(heat[..., shift:], live.heatmaps[..., shift:], atol=FLOAT16)
    np.testing.assert_array_equal(heat[..., :shift], 0)
    if shift:
        assert batch.teacher.is_known is not None
        known = batch.teacher.is_known.numpy()
        assert not known[..., :shift].any()
        assert known[..., shift:].all()
    else:
        assert batch.teacher.is_known is None
    # The teacher is not symmetric: only the average with the mirrored crop makes this law hold.
    one_pass = teacher.predict_heatmaps(np.stack(crops)[:, :, ::-1].copy())
    assert np.abs(heat[..., shift:] - one_pass[..., shift:]).max() > 10 * FLOAT16

    assert batch.teacher.keypoints is not None
    assert batch.teacher.confidences is not None
    found = batch.teacher.keypoints.numpy()
    expected = (live.keypoints + 0.5) / 2 - 0.5  # from 256x192 to 128x96
    column = live.heatmaps.reshape(*live.heatmaps.shape[:2], -1).argmax(-1) % 48
    cells = apply(batch.teacher.crop_to_heatmap.numpy(), found)[..., 0]
    # Where neither map peaks near a border: DARK reads the columns around a peak.
    is_inner = (column > 8) & (column < 40) & (cells > 8) & (cells < 40)
    assert is_inner.sum() > 10
    assert np.median(np.abs(found - expected)[is_inner]) < 0.01
    assert (np.abs(found - expected)[is_inner].max(axis=-1) < 0.1).mean() > 0.9
    np.testing.assert_allclose(
        batch.teacher.confidences.numpy()[is_inner], live.confidences[is_inner], atol=FLOAT16
    )


@pytest.mark.parametrize("from_crops", [False, True])
def test_a_mirrored_view_shows_the_mirrored_crop_with_left_and_right_exchanged(
    inputs: Any, rows_and_views: ViewBatch, from_crops: bool
) -> None:
    make_averaged_store(inputs, crops=from_crops)
    data = MirroredViewSettings(from_crops=from_crops)
    plain = batch_of(inputs, rows_and_views, data, STUDENT)
    batch = batch_of(inputs, mirrored(rows_and_views), data, STUDENT)
    difference = np.abs(batch.images.numpy()[:, :, ::-1].astype(int) - plain.images.numpy())
    assert np.percentile(difference, 99) <= 2  # the rounding of one interpolation
    flips = list(TeacherStore.open(inputs.store).people.skeleton.flip_indices)
    assert (plain.keypoint_weights.sum(dim=1) > 3).all()
    np.testing.assert_array_equal(batch.keypoint_weights, plain.keypoint_weights[:, flips])
    labelled = batch.keypoint_weights.numpy() > 0
    expected = plain.keypoints.numpy()[:, flips] * [-1, 1] + [95, 0]
    np.testing.assert_allclose(batch.keypoints.numpy()[labelled], expected[labelled], atol=1e-3)

    assert batch.teacher is not None
    assert plain.teacher is not None
    assert batch.teacher.keypoints is not None
    assert plain.teacher.keypoints is not None
    affine = plain.teacher.crop_to_heatmap.numpy()
    cells = apply(affine, plain.teacher.keypoints.numpy())[:, flips]
    moved = apply(affine, batch.teacher.keypoints.numpy())
    np.testing.assert_allclose(moved, cells * [-1, 1] + [48, 0], atol=1e-3)  # 47 - x, shifted by 1


def test_unmirrored_views_are_those_that_replay_shows(
    averaged: Any, rows_and_views: ViewBatch
) -> None:
    """Alone, and beside mirrored ones, where all their cells are known."""
    replayed = batch_of(averaged, rows_and_views, ReplayedViewSettings(), STUDENT)
    alone = batch_of(averaged, rows_and_views, MIRROR, STUDENT)
    views = rows_and_views.views + np.array([0, 0, 2, 0, 2])
    mixed = batch_of(averaged, ViewBatch(rows_and_views.instances, views), MIRROR, STUDENT)
    kept = [0, 1, 3]
    assert replayed.teacher is not None
    for batch, rows in ((alone, [0, 1, 2, 3, 4]), (mixed, kept)):
        assert batch.teacher is not None
        np.testing.assert_array_equal(batch.images[rows], replayed.images[rows])
        for name in ("heatmaps", "scale", "keypoints", "confidences", "keypoint_weights"):
            found, expected = getattr(batch.teacher, name), getattr(replayed.teacher, name)
            np.testing.assert_allclose(found[rows], expected[rows], rtol=1e-6)
        assert batch.teacher.is_known is not None
        assert batch.teacher.is_known[rows].all()


def test_epochs_show_every_stored_view_and_its_mirror_image_once(averaged: Any) -> None:
    views = open_store_views(averaged.store, averaged.images, MIRROR, HEATMAPS)
    order = views.order(batch_size=len(views.instances), seed=0)
    shown = {
        pair
        for epoch in range(4)
        for batch in order.batches(epoch, 0)
        for pair in zip(*map(np.ndarray.tolist, batch), strict=True)
    }
    assert shown == {(row, view) for row in views.instances.tolist() for view in (1, 2, 3, 4)}
    one = MirroredViewSettings(num_views=1)
    assert open_store_views(averaged.store, averaged.images, one, HEATMAPS).num_views == 2


def test_what_cannot_be_mirrored_is_refused(averaged: Any, whole_store: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs heatmaps that are averaged .* are not; set it"):
        open_store_views(whole_store, averaged.images, MIRROR, HEATMAPS)
    reads = frozenset[TeacherField]({"visual_tokens"})
    views = open_store_views(averaged.store, averaged.images, MIRROR, reads)
    with pytest.raises(ConfigError, match=r"visual_tokens are those .* cannot be mirrored; set"):
        views.dataset(STUDENT)
    with pytest.raises(ConfigError, match=r"aspect of the student's input, 96 x 96"):
        open_store_views(averaged.store, averaged.images, MIRROR, HEATMAPS).dataset((96, 96))
    several = MirroredViewSettings(num_views=3)
    with pytest.raises(ConfigError, match=r"num_views is 3, but .* holds 2 augmented views"):
        open_store_views(averaged.store, averaged.images, several, HEATMAPS)
