"""Changes of a student's own crops: of their colours, and of a rectangle that hides a part.

Geometry and targets stay as they are, and the teacher never sees such a crop. Every draw follows
from (seed, instance id, view), so neither loader workers nor a resumed training change it.
"""

import hashlib
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from pipeline.training.batch import TrainingBatch
from pipeline.training.settings import CropChanges, OcclusionSettings, PhotometricSettings
from pipeline.training.view_order import ViewBatch

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in the grey of a pixel: ITU-R BT.601."""
_LARGEST_ASPECT = 3.0


class ChangedCrops(Dataset[TrainingBatch]):
    """The batches of a data set, their crops changed.

    instance_ids: (n,), the ids of the people by row.
    """

    def __init__(
        self,
        dataset: Dataset[TrainingBatch],
        changes: CropChanges,
        instance_ids: NDArray[np.int64],
        seed: int,
    ) -> None:
        self._dataset, self._changes = dataset, changes
        self._instance_ids, self._seed = instance_ids, seed

    def __getitem__(self, views: ViewBatch) -> TrainingBatch:
        batch = self._dataset[views]
        crops = batch.images.numpy().copy()
        ids = self._instance_ids[views.instances]
        for row, (instance_id, view) in enumerate(zip(ids.tolist(), views.views, strict=True)):
            key = hashlib.sha256(f"crop {self._seed} {instance_id} {view}".encode()).digest()
            random = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
            crops[row] = change_colours(crops[row], self._changes.photometric, random)
            hide_a_part(crops[row], self._changes.occlusion, random)
        return replace(batch, images=torch.from_numpy(crops))


def with_changed_crops(
    dataset: Dataset[TrainingBatch],
    changes: CropChanges,
    instance_ids: NDArray[np.int64],
    seed: int,
) -> Dataset[TrainingBatch]:
    """Return a data set whose crops are changed as the settings say; unchanged if they say none."""
    if changes.change_nothing:
        return dataset
    return ChangedCrops(dataset, changes, instance_ids, seed)


def change_colours(
    crop: NDArray[np.uint8], settings: PhotometricSettings, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a crop whose brightness, contrast and saturation are multiplied by random factors.

    As in torchvision's ColorJitter, in this order: the crop is blended with black, with its mean
    grey and with its own grey.

    crop: (H, W, 3) uint8, RGB.
    """
    ranges = (settings.brightness, settings.contrast, settings.saturation)
    brightness, contrast, saturation = (1 + r * random.uniform(-1, 1) for r in ranges)
    if not any(ranges):
        return crop
    pixels = np.clip(crop * np.float32(brightness), 0, 255)
    mean = np.float32((pixels @ _LUMA).mean())
    pixels = np.clip(mean + np.float32(contrast) * (pixels - mean), 0, 255)
    grey = (pixels @ _LUMA)[..., None]
    pixels = np.clip(grey + np.float32(saturation) * (pixels - grey), 0, 255)
    return np.rint(pixels).astype(np.uint8)


def hide_a_part(
    crop: NDArray[np.uint8], settings: OcclusionSettings, random: np.random.Generator
) -> None:
    """Fill a random rectangle of a crop with noise, in place: Random Erasing (Zhong et al., 2020).

    The keypoints below it keep their labels, so that a network learns to infer them.

    crop: (H, W, 3) uint8.
    """
    is_hidden, share, aspect, left, top = random.random(5)
    if is_hidden >= settings.probability:
        return
    height, width = crop.shape[:2]
    area = settings.largest_share * share * height * width
    ratio = _LARGEST_ASPECT ** (2 * aspect - 1)
    h = min(height, max(1, round((area * ratio) ** 0.5)))
    w = min(width, max(1, round((area / ratio) ** 0.5)))
    y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
    crop[y : y + h, x : x + w] = random.integers(0, 256, (h, w, 3), dtype=np.uint8)
