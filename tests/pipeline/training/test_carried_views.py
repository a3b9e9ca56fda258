"""Laws of new views of a store's people: pixels, labels and the teacher's predictions agree."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.coco.people import IgnoreRegions, People, Skeleton
from pipeline.errors import PeopleError
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import SizeHW, apply, box_to_crop, compose, crop_to_heatmap
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.settings import HeatmapFrame, ViewRecipe
from pipeline.teacher_store.keypoint_reading import StoredKeypoints
from pipeline.teacher_store.reader import StoredViews, TeacherStore, WideCrops
from pipeline.training.heatmap_losses import heat_at
from pipeline.training.images import TrainingImages
from pipeline.training.sources import hide_labels, labelled_rows
from pipeline.training.store_data import CarriedViewDataset
from pipeline.training.view_order import BlockOrder, ViewBatch

CROP, HEATMAP, VIEW = (256, 192), (64, 48), (128, 96)
POINTS = ((80, 60), (60, 100), (100, 130))
SKELETON = Skeleton(
    keypoint_names=("nose", "left_hand", "right_hand"),
    edges=(),
    flip_indices=(0, 2, 1),
    sigmas=(0.1, 0.1, 0.1),
)


def people_of(count: int = 1) -> People:
    keypoints = np.array([[(x, y, 2) for x, y in POINTS]] * count, np.float32)
    return People(
        skeleton=SKELETON,
        category_id=1,
        image_id=np.array([1]),
        image_name=("a.png",),
        image_size_hw=np.array([[200, 160]]),
        instance_id=np.arange(5, 5 + count),
        image_index=np.zeros(count, np.int64),
        bbox_xywh=np.tile([40.0, 40.0, 80.0, 110.0], (count, 1)),
        area=np.full(count, 4000.0),
        keypoints=keypoints,
        ignored=IgnoreRegions.none(),
    )


class KnowingStore(TeacherStore):
    """Holds one person, whose plain crop a teacher knows the truth of."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.people = people_of()
        self.input_size_hw, self.heatmap_size_hw = CROP, HEATMAP
        self._image = image
        self._image_to_crop = box_to_crop(self.people.bbox_xywh, CROP)

    @property
    def heatmap_frame(self) -> HeatmapFrame:
        return "msra"

    def read_image_to_crop(self, instances: Any, views: Any) -> NDArray[np.float64]:
        assert not np.any(views), "only the plain view is carried"
        return self._image_to_crop[instances]

    def read_keypoints(self, instances: Any, views: Any) -> StoredKeypoints:
        return self.read(instances, views)

    def read(self, instances: Any, views: Any, out: Any = None) -> StoredViews:
        affines = self.read_image_to_crop(instances, views)
        keypoints = apply(affines, self.people.keypoints[instances, :, :2])
        heat = encode_keypoints(
            apply(crop_to_heatmap("msra", CROP, HEATMAP), keypoints), HEATMAP, 2.0
        )
        return StoredViews(
            image_to_crop=affines,
            is_mirrored=np.zeros(len(instances), np.bool_),
            status=np.ones(len(instances), np.uint8),
            keypoints=keypoints.astype(np.float32),
            confidence=np.tile(np.array([0.9, 0.5, 0.1], np.float32), (len(instances), 1)),
            heatmaps=np.round(heat * 250).astype(np.uint8),
            scale=np.tile(np.array([0.9, 0.5, 0.1], np.float32) / 250, (len(instances), 1)),
        )

    def read_wide_crops(self, instances: Any, views: Any) -> WideCrops:
        affines = self.read_image_to_crop(instances, views)
        crops = np.stack([warp_crop(self._image, affine, CROP) for affine in affines])
        return WideCrops(crops, affines)


@pytest.fixture
def image() -> NDArray[np.uint8]:
    """Black, with a bright 7 x 7 dot about each keypoint of its one person."""
    image = np.zeros((200, 160, 3), np.uint8)
    for x, y in POINTS:
        image[y - 3 : y + 4, x - 3 : x + 4] = 255
    return image


def dataset_of(
    image: NDArray[np.uint8],
    folder: Path | None,
    reads: frozenset[Any] = frozenset({"heatmaps"}),
    size: SizeHW = VIEW,
) -> CarriedViewDataset:
    store, images = KnowingStore(image), None
    if folder is not None:
        Image.fromarray(image).save(folder / "a.png")
        images = TrainingImages(store.people, folder)
    return CarriedViewDataset(store, store.people, images, ViewRecipe(), 0, size, reads)


MANY = ViewBatch(np.zeros(60, np.int64), np.arange(1, 61))


@pytest.mark.parametrize("from_crops", [False, True])
@pytest.mark.parametrize("size", [VIEW, (128, 128)])
def test_labels_pixels_and_the_teachers_keypoints_agree_in_every_view(
    image: NDArray[np.uint8], tmp_path: Path, from_crops: bool, size: SizeHW
) -> None:
    batch = dataset_of(image, None if from_crops else tmp_path, size=size)[MANY]
    teacher = batch.teacher
    assert teacher is not None
    assert teacher.keypoints is not None
    assert teacher.keypoint_weights is not None
    assert batch.images.shape == (60, *size, 3)
    is_seen = batch.keypoint_weights > 0
    assert 100 < is_seen.sum() < 180
    torch.testing.assert_close(teacher.keypoint_weights, batch.keypoint_weights)
    torch.testing.assert_close(
        teacher.keypoints[is_seen], batch.keypoints[is_seen], atol=1e-3, rtol=0
    )
    for view in range(60):
        for (x, y), weight in zip(
            batch.keypoints[view].round().long().tolist(),
            batch.keypoint_weights[view].tolist(),
            strict=True,
        ):
            assert not weight or batch.images[view, y, x].min() > 90


def test_heat_and_confidence_go_with_their_keypoint_left_and_right_exchanged(
    image: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Each keypoint has a confidence of its own, by which it is known in a mirrored view."""
    batch = dataset_of(image, tmp_path)[MANY]
    teacher = batch.teacher
    assert teacher is not None
    assert teacher.heatmaps is not None
    assert teacher.is_known is not None
    assert teacher.confidences is not None
    height, width = batch.images.shape[1:3]
    affine = teacher.crop_to_heatmap[:, None]
    points = (affine[..., :2] @ batch.keypoints[..., None])[..., 0] + affine[..., 2]
    known = heat_at(points, teacher.is_known[:, None].expand(-1, 3, -1, -1).to(torch.uint8)) > 0
    checked = (batch.keypoint_weights > 0) & known
    heat = heat_at(points, teacher.heatmaps, teacher.scale)
    ratio = (heat / teacher.confidences)[checked]
    assert checked.sum() > 90
    assert ratio.min() > 0.8
    assert ratio.max() < 1.01
    hands = teacher.confidences[:, 1:].tolist()
    assert {tuple(round(value, 2) for value in pair) for pair in hands} == {(0.5, 0.1), (0.1, 0.5)}
    assert (height, width) == VIEW


def test_areas_are_those_of_the_person_in_the_view(
    image: NDArray[np.uint8], tmp_path: Path
) -> None:
    """The area of the box, mapped by its corners; the annotated area is a fixed part of it."""
    dataset = dataset_of(image, tmp_path)
    batch = dataset[MANY]
    plain = compose(np.eye(2, 3), box_to_crop([40.0, 40.0, 80.0, 110.0], VIEW))
    unit = 4000.0 * abs(np.linalg.det(plain[:, :2]))
    assert (batch.areas > 0.29 * unit).all()  # half bodies are closer
    assert len(set(batch.areas.tolist())) > 30
    still = CarriedViewDataset(
        KnowingStore(image),
        people_of(),
        TrainingImages(people_of(), tmp_path),
        ViewRecipe(
            half_body_probability=0, scale_factor=0, rotation_probability=1, shift_probability=0
        ),
        0,
        VIEW,
        frozenset(),
    )
    np.testing.assert_allclose(still[MANY].areas, unit, rtol=1e-5)


def test_nothing_of_a_teacher_is_read_that_no_term_reads(
    image: NDArray[np.uint8], tmp_path: Path
) -> None:
    assert dataset_of(image, tmp_path, frozenset())[MANY].teacher is None
    teacher = dataset_of(image, tmp_path, frozenset({"keypoints"}))[MANY].teacher
    assert teacher is not None
    assert teacher.keypoints is not None
    assert teacher.heatmaps is None


def test_a_share_of_labels_is_always_the_same_people_and_larger_ones_include_smaller() -> None:
    people = people_of(400)
    labelled = {
        share: set(np.flatnonzero(hide_labels(people, share).is_labelled.any(axis=1)).tolist())
        for share in (0.0, 0.1, 0.3, 1.0)
    }
    assert (len(labelled[0.0]), len(labelled[1.0])) == (0, 400)
    assert 20 < len(labelled[0.1]) < 60
    assert 90 < len(labelled[0.3]) < 150
    assert labelled[0.1] < labelled[0.3]
    hidden = hide_labels(people, 0.1)
    assert np.isnan(hidden.keypoints[~hidden.is_labelled][:, :2]).all()
    assert not np.isnan(people.keypoints).any()


def test_people_without_labels_are_left_out_where_only_labels_are_learned_from() -> None:
    people = hide_labels(people_of(50), 0.2)
    rows = labelled_rows(people, np.arange(50))
    assert 0 < len(rows) < 30
    assert people.is_labelled[rows].all()
    with pytest.raises(PeopleError, match="none of the 50 people has a labelled keypoint"):
        labelled_rows(hide_labels(people_of(50), 0.0), np.arange(50))


def test_blocks_of_new_views_show_everybody_once_an_epoch_under_a_new_view() -> None:
    order = BlockOrder(np.arange(64), rows_per_shard=8, num_views=None, batch_size=8, seed=0)
    for epoch in (0, 1, 5):
        batches = list(order.batches(epoch))
        assert sorted(np.concatenate([batch.instances for batch in batches])) == list(range(64))
        assert {view for batch in batches for view in batch.views.tolist()} == {1 + epoch}
