"""Laws of changed crops: a function of (seed, instance id, view), and torchvision's formulas."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from pipeline.training.augmentation import change_colours, hide_a_part, with_changed_crops
from pipeline.training.batch import TrainingBatch
from pipeline.training.settings import CropChanges, OcclusionSettings, PhotometricSettings
from pipeline.training.view_order import ViewBatch

CHANGES = CropChanges(
    photometric=PhotometricSettings(brightness=0.4, contrast=0.3, saturation=0.5),
    occlusion=OcclusionSettings(probability=0.5),
)
IDS = np.array([70, 71, 72, 73])


def picture(height: int = 32, width: int = 24) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Crops(Dataset[TrainingBatch]):
    def __getitem__(self, views: ViewBatch) -> TrainingBatch:
        size = len(views.views)
        images = torch.from_numpy(np.stack([picture()] * size))
        ones = torch.ones(size, 1)
        return TrainingBatch(images, torch.ones(size, 1, 2), ones, ones > 0, ones[:, 0])


def changed(rows: list[int], views: list[int], seed: int = 3) -> TrainingBatch:
    dataset = with_changed_crops(Crops(), CHANGES, IDS, seed)
    return dataset[ViewBatch(np.array(rows), np.array(views))]


def test_a_crop_depends_on_seed_person_and_view_alone() -> None:
    batch = changed([0, 1, 2, 3], [1, 1, 2, 1])
    for row, view in enumerate([1, 1, 2, 1]):
        assert torch.equal(changed([row], [view]).images[0], batch.images[row])
    others = (changed([0], [2]), changed([1], [1]), changed([0], [1], seed=4))
    assert all(not torch.equal(other.images[0], batch.images[0]) for other in others)


def test_only_the_pixels_of_a_batch_change() -> None:
    views = ViewBatch(np.array([0, 1]), np.array([1, 2]))
    before, after = Crops()[views], with_changed_crops(Crops(), CHANGES, IDS, 3)[views]
    for field in fields(TrainingBatch):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if field.name != "images" and isinstance(one, torch.Tensor):
            assert torch.equal(one, other)
    assert torch.equal(before.images, Crops()[views].images)


def test_without_changes_the_data_set_is_the_same_one() -> None:
    crops = Crops()
    assert with_changed_crops(crops, CropChanges(), IDS, 3) is crops


class Fixed(np.random.Generator):
    """Draws given numbers."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(np.random.Philox(0))
        self.numbers = list(numbers)

    def uniform(self, *_: object) -> float:  # type: ignore[override]
        return self.numbers.pop(0)

    def random(self, size: int) -> list[float]:  # type: ignore[override]
        return [self.numbers.pop(0) for _ in range(size)]


@pytest.mark.parametrize("draws", [(1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 0.5)])
def test_colours_change_as_in_torchvision(draws: tuple[float, float, float]) -> None:
    crop = picture()
    ranges = CHANGES.photometric
    ours = change_colours(crop, ranges, Fixed(*draws))
    theirs = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
    theirs = functional.adjust_brightness(theirs, 1 + ranges.brightness * draws[0])
    theirs = functional.adjust_contrast(theirs, 1 + ranges.contrast * draws[1])
    theirs = functional.adjust_saturation(theirs, 1 + ranges.saturation * draws[2])
    expected = (theirs * 255).permute(1, 2, 0).numpy()
    assert np.abs(ours - expected).max() <= 0.75  # torchvision rounds its grey's weights


def test_a_rectangle_of_the_drawn_area_and_aspect_is_hidden() -> None:
    crop = np.zeros((60, 40, 3), np.uint8)
    settings = OcclusionSettings(probability=0.5, largest_share=0.25)
    hide_a_part(crop, settings, Fixed(0.49, 1.0, 1.0, 0.999, 0.0))
    rows, columns = np.nonzero(crop.any(axis=-1))
    # 600 cells, three times as high as wide: 42 x 14, in the upper right corner.
    assert (rows.min(), rows.max() + 1) == (0, 42)
    assert (columns.min(), columns.max() + 1) == (26, 40)
    untouched = np.zeros((60, 40, 3), np.uint8)
    hide_a_part(untouched, settings, Fixed(0.5, 1.0, 1.0, 0.5, 0.5))
    assert not untouched.any()


def test_the_largest_share_bounds_what_is_hidden() -> None:
    random = np.random.default_rng(0)
    settings = OcclusionSettings(probability=1.0, largest_share=0.1)
    shares = []
    for _ in range(200):
        crop = np.zeros((64, 48, 3), np.uint8)
        hide_a_part(crop, settings, random)
        rows, columns = np.nonzero(crop.any(axis=-1))
        shares.append(float(np.ptp(rows) + 1) * float(np.ptp(columns) + 1) / (64 * 48))
    assert max(shares) < 0.11
    assert 0.03 < float(np.mean(shares)) < 0.07
