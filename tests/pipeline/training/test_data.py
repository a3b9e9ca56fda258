"""Laws of training records: keypoints move with the pixels, left and right swap, edges count."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from pipeline.coco.people import IgnoreRegions, People, Skeleton
from pipeline.errors import DistilError, ImageError
from pipeline.frames.geometry import compose, mirror_affine
from pipeline.settings import HeatmapFrame, ViewRecipe
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.batch import TrainingBatch
from pipeline.training.data import (
    BatchLoader,
    FreshViewDataset,
    move_keypoints,
)
from pipeline.training.images import TrainingImages
from pipeline.training.settings import TeacherField
from pipeline.training.store_data import ReplayedViewDataset
from pipeline.training.view_order import ViewBatch, ViewOrder
from store_schemas.errors import CorruptError, StoreError

SKELETON = Skeleton(
    keypoint_names=("nose", "left_hand", "right_hand"),
    edges=(),
    flip_indices=(0, 2, 1),
    sigmas=(0.1, 0.1, 0.1),
)
NAN = float("nan")
UPRIGHT = np.eye(2, 3)[None]
PLAIN = ViewRecipe(
    flip_probability=0, half_body_probability=0, rotation_probability=0, shift_probability=0
)


def keypoints(*rows: tuple[float, float, float]) -> NDArray[np.float32]:
    return np.array([rows], np.float32)


def test_a_mirrored_person_swaps_left_and_right_with_their_weights() -> None:
    person = keypoints((10, 20, 2), (4, 30, 1), (NAN, NAN, 0))
    mirrored = compose(mirror_affine(100), np.eye(2, 3))[None]
    points, weights, _ = move_keypoints(person, SKELETON, mirrored, (100, 100))
    assert points[0].tolist() == [[89, 20], [0, 0], [95, 30]]
    assert weights[0].tolist() == [1, 0, 1]


def test_an_upright_person_keeps_left_and_right() -> None:
    person = keypoints((10, 20, 2), (4, 30, 1), (NAN, NAN, 0))
    points, weights, _ = move_keypoints(person, SKELETON, UPRIGHT, (100, 100))
    assert points[0].tolist() == [[10, 20], [4, 30], [0, 0]]
    assert weights[0].tolist() == [1, 1, 0]


def test_a_keypoint_counts_from_the_first_to_the_last_pixel_centre() -> None:
    person = keypoints((0, 0, 2), (59, 79, 2), (59.01, 3, 2))
    _, weights, _ = move_keypoints(person, SKELETON, UPRIGHT, (80, 60))
    assert weights[0].tolist() == [1, 1, 0]
    _, weights, _ = move_keypoints(
        keypoints((-0.01, 0, 2), (0, 79.01, 2), (0, -1, 2)), SKELETON, UPRIGHT, (80, 60)
    )
    assert weights[0].tolist() == [0, 0, 0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One image: black, with a bright 5 x 5 dot about each keypoint of its one person."""
    image = np.zeros((200, 160, 3), np.uint8)
    for x, y in ((80, 60), (60, 100), (100, 130)):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    return tmp_path


def one_person() -> People:
    nobody = IgnoreRegions(
        annotation_id=np.zeros(0, np.int64),
        image_index=np.zeros(0, np.int64),
        bbox_xywh=np.zeros((0, 4)),
        area=np.zeros(0),
        is_crowd=np.zeros(0, np.bool_),
        num_keypoints=np.zeros(0, np.int64),
    )
    return People(
        skeleton=SKELETON,
        category_id=1,
        image_id=np.array([1]),
        image_name=("a.png",),
        image_size_hw=np.array([[200, 160]]),
        instance_id=np.array([5]),
        image_index=np.array([0]),
        bbox_xywh=np.array([[40.0, 40.0, 80.0, 110.0]]),
        area=np.array([4000.0]),
        keypoints=keypoints((80, 60, 2), (60, 100, 2), (100, 130, 2)),
        ignored=nobody,
    )


def test_keypoints_lie_on_the_dots_of_every_fresh_view(folder: Path) -> None:
    """The dots look alike, so each keypoint must have one under it, mirrored or not."""
    dataset = FreshViewDataset(
        one_person(), TrainingImages(one_person(), folder), ViewRecipe(), 0, (128, 96)
    )
    batch = dataset[ViewBatch(np.zeros(40, np.int64), np.arange(1, 41))]
    assert batch.images.shape == (40, 128, 96, 3)
    assert batch.keypoint_weights.sum() > 60
    for image, points, weights in zip(
        batch.images, batch.keypoints, batch.keypoint_weights, strict=True
    ):
        for (x, y), weight in zip(points.round().long().tolist(), weights.tolist(), strict=True):
            assert not weight or image[y, x].min() > 120


def test_a_dataset_survives_pickling_for_worker_processes(folder: Path) -> None:
    images = TrainingImages(one_person(), folder, cache_bytes=1 << 20)
    dataset = FreshViewDataset(one_person(), images, PLAIN, 0, (128, 96))
    batch = ViewBatch(np.array([0]), np.array([3]))
    twin = pickle.loads(pickle.dumps(dataset))
    assert (twin[batch].images == dataset[batch].images).all()


class StoreWithTokens(TeacherStore):
    """Holds one person, and tokens of both kinds for every view."""

    def __init__(self) -> None:
        self.people = one_person()
        self.input_size_hw, self.heatmap_size_hw = (128, 96), (32, 24)

    @property
    def heatmap_frame(self) -> HeatmapFrame:
        return "msra"

    def read_keypoints(self, instances: Any, views: Any) -> Any:
        return SimpleNamespace(
            image_to_crop=np.tile(UPRIGHT, (len(instances), 1, 1)),
            keypoints=np.zeros((len(instances), 3, 2), np.float32),
            confidence=np.ones((len(instances), 3), np.float32),
        )

    def read_crops(self, instances: Any, views: Any) -> NDArray[np.uint8]:
        return np.zeros((len(instances), 128, 96, 3), np.uint8)

    def read_tokens(self, instances: Any, views: Any) -> dict[str, NDArray[np.float16]]:
        num_views = len(instances)
        return {
            "keypoint": np.full((num_views, 3, 8), 1, np.float16),
            "visual": np.full((num_views, 48, 8), 2, np.float16),
        }


@pytest.mark.parametrize(
    "reads",
    [{"keypoint_tokens"}, {"visual_tokens"}, {"keypoint_tokens", "visual_tokens"}],
    ids=lambda reads: " and ".join(sorted(reads)),
)
def test_only_tokens_that_a_loss_term_reads_are_in_the_batch(reads: set[TeacherField]) -> None:
    dataset = ReplayedViewDataset(
        StoreWithTokens(), one_person(), None, (128, 96), frozenset(reads)
    )
    teacher = dataset[ViewBatch(np.array([0, 0]), np.array([1, 2]))].teacher
    assert teacher is not None
    assert teacher.heatmaps is None
    for name, shape in (("keypoint_tokens", (2, 3, 8)), ("visual_tokens", (2, 48, 8))):
        tokens = getattr(teacher, name)
        assert (tokens is not None) == (name in reads)
        assert tokens is None or tokens.shape == shape


class Refusing(Dataset[TrainingBatch]):
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getitem__(self, batch: ViewBatch) -> TrainingBatch:
        raise self._error


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("error", [ImageError("a.jpg is torn"), CorruptError("row 1 is torn")])
def test_an_error_written_for_people_leaves_a_worker_as_it_is(
    error: Exception, num_workers: int
) -> None:
    """Torch alone would put it into a traceback of many lines."""
    order = ViewOrder(np.array([0]), np.array([5]), 1, 1, 0)
    loader = BatchLoader(Refusing(error), order, num_workers, torch.device("cpu"))
    with pytest.raises((DistilError, StoreError)) as refusal:
        next(loader.batches_of_epoch(0))
    assert (type(refusal.value), str(refusal.value)) == (type(error), str(error))
