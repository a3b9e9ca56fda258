"""Batches for training: crops and keypoints, and a teacher's heatmaps where there is a store.

Two data sets return the same record. ``FreshViewDataset`` draws the view it is asked for.
``StoreViewDataset`` replays the views of a teacher store, so that student and teacher look at
identical crops. Both are asked for a whole batch at once and know nothing of epochs or order.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.coco.people import People, Skeleton
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import Affine, SizeHW, apply, compose, is_mirroring, resize_affine
from pipeline.frames.views import ViewRecipe, draw_view
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.images import TrainingImages
from pipeline.training.view_order import ViewBatch, ViewOrder


class TrainingBatch(NamedTuple):
    """What one step learns from."""

    images: Tensor  # (B, H, W, 3) uint8, RGB, the student's crop
    keypoints: Tensor  # (B, K, 2) as (x, y), crop pixels; 0 where the weight is 0
    keypoint_weights: Tensor  # (B, K) in {0, 1}: labelled and inside the crop
    heatmaps: Tensor | None = None  # (B, K, Hh, Wh) uint8
    scale: Tensor | None = None  # (B, K), heat = heatmaps * scale


class FreshViewDataset(Dataset[TrainingBatch]):
    """People under views that are drawn when they are asked for; no teacher."""

    def __init__(
        self,
        people: People,
        images: TrainingImages,
        recipe: ViewRecipe,
        seed: int,
        input_size_hw: SizeHW,
    ) -> None:
        self._people = people
        self._images = images
        self._recipe = recipe
        self._seed = seed
        self._input_size_hw = input_size_hw

    def __getitem__(self, batch: ViewBatch) -> TrainingBatch:
        image_to_crop = np.stack(
            [
                self._draw(instance, view)
                for instance, view in zip(*map(np.ndarray.tolist, batch), strict=True)
            ]
        )
        return crop_people(
            self._people, self._images, batch.instances, image_to_crop, self._input_size_hw
        )

    def _draw(self, instance: int, view: int) -> Affine:
        people = self._people
        return draw_view(
            self._recipe,
            self._seed,
            int(people.instance_id[instance]),
            view,
            people.bbox_xywh[instance],
            people.keypoints[instance],
            people.skeleton,
            self._input_size_hw,
        )


class StoreViewDataset(Dataset[TrainingBatch]):
    """The views of a teacher store, and what its teacher said of them unless that is not used.

    The store opens its files in the process that reads.
    """

    def __init__(
        self,
        store: TeacherStore,
        images: TrainingImages,
        input_size_hw: SizeHW,
        reads_heatmaps: bool,
    ) -> None:
        self._store = store
        self._images = images
        self._input_size_hw = input_size_hw
        self._reads_heatmaps = reads_heatmaps

    def __getitem__(self, batch: ViewBatch) -> TrainingBatch:
        store = self._store
        stored_to_input = resize_affine(store.input_size_hw, self._input_size_hw)
        stored = store.views.image_to_crop[batch.instances, batch.views]
        record = crop_people(
            store.people,
            self._images,
            batch.instances,
            compose(stored_to_input, stored),
            self._input_size_hw,
        )
        if not self._reads_heatmaps:
            return record
        outputs = store.read(batch.instances, batch.views)
        return record._replace(
            heatmaps=torch.from_numpy(outputs.heatmaps), scale=torch.from_numpy(outputs.scale)
        )


def crop_people(
    people: People,
    images: TrainingImages,
    instances: NDArray[np.int64],
    image_to_crop: Affine,
    input_size_hw: SizeHW,
) -> TrainingBatch:
    """Cut views out of their images and move the keypoints along.

    instances: (B,), rows of the people's table.
    image_to_crop: (B, 2, 3), mirror included, to crops of ``input_size_hw``.
    """
    crops = np.empty((len(instances), *input_size_hw, 3), np.uint8)
    for row, instance in enumerate(instances.tolist()):
        image = images.read(int(people.image_index[instance]))
        crops[row] = warp_crop(image, image_to_crop[row], input_size_hw)
    keypoints, weights = move_keypoints(
        people.keypoints[instances], people.skeleton, image_to_crop, input_size_hw
    )
    return TrainingBatch(
        images=torch.from_numpy(crops),
        keypoints=torch.from_numpy(keypoints),
        keypoint_weights=torch.from_numpy(weights),
    )


def move_keypoints(
    keypoints: NDArray[np.float32], skeleton: Skeleton, image_to_crop: Affine, crop_size_hw: SizeHW
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Carry annotated keypoints into their crops; a mirrored person's left is right.

    keypoints: (B, K, 3) as (x, y, visibility), image pixels; NaN where unlabelled.
    image_to_crop: (B, 2, 3), mirror included.
    Returns points (B, K, 2), crop pixels, and weights (B, K): 1 where a keypoint is labelled and
    0 <= x <= W - 1, 0 <= y <= H - 1, else 0; the point is then 0 too.
    """
    mirrored = is_mirroring(image_to_crop)[:, None, None]
    keypoints = np.where(mirrored, keypoints[:, list(skeleton.flip_indices)], keypoints)
    points = apply(image_to_crop, keypoints[..., :2])
    limit = np.array([crop_size_hw[1] - 1, crop_size_hw[0] - 1])
    is_inside = ((points >= 0) & (points <= limit)).all(axis=-1)  # false for NaN
    weights = is_inside & (keypoints[..., 2] > 0)
    points = np.where(weights[..., None], points, 0.0)
    return points.astype(np.float32), weights.astype(np.float32)


class BatchLoader:
    """The batches of each epoch, loaded by worker processes or, with none, in this one.

    Workers live as long as the loader, so that their images stay cached.
    """

    def __init__(
        self,
        dataset: Dataset[TrainingBatch],
        order: ViewOrder,
        num_workers: int,
        device: torch.device,
    ) -> None:
        self._order = order
        self._loader: DataLoader[TrainingBatch] = DataLoader(
            dataset,
            batch_size=None,
            sampler=order,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=4 if num_workers else None,
            worker_init_fn=_start_worker,
            # Starts at once and inherits the people; workers touch no device and no torch kernel.
            multiprocessing_context="fork" if num_workers else None,
            pin_memory=device.type != "cpu",
            # The loader draws a seed per epoch; not from the generator that training uses.
            generator=torch.Generator(),
        )

    def batches_of_epoch(self, epoch: int) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch, in its order."""
        self._order.epoch = epoch
        yield from self._loader


def _start_worker(_: int) -> None:
    """Keep each worker to one thread: there is one per core already."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
