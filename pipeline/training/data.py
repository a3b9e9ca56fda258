"""Batches for training: the crops and keypoints of annotated people, and the loader of batches.

A data set is indexed by a whole batch, and knows nothing of epochs or their order; those of teacher
stores are in ``store_data.py``.
"""

import os
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.coco.people import People, Skeleton
from pipeline.errors import DistilError
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import Affine, SizeHW, apply, is_mirroring
from pipeline.frames.views import draw_view
from pipeline.settings import ViewRecipe
from pipeline.training.batch import TrainingBatch
from pipeline.training.distributed import ALONE, Processes
from pipeline.training.images import TrainingImages
from pipeline.training.view_order import BatchOrder, ViewBatch
from store_schemas.errors import StoreError

StartMethod = Literal["fork", "forkserver", "spawn"]
TrainingDataset = Dataset[TrainingBatch]


class FreshViewDataset(Dataset[TrainingBatch]):
    """Annotated people under views that are drawn when they are read; without a teacher."""

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
        image_to_crop = draw_batch(
            self._people, self._recipe, self._seed, batch, self._input_size_hw
        )
        return crop_people(
            self._people, self._images, batch.instances, image_to_crop, self._input_size_hw
        )


def draw_batch(
    people: People, recipe: ViewRecipe, seed: int, batch: ViewBatch, input_size_hw: SizeHW
) -> Affine:
    """Draw the views of a batch: image_to_crop (B, 2, 3), mirror included."""
    return np.stack(
        [
            draw_view(
                recipe,
                seed,
                int(people.instance_id[instance]),
                view,
                people.bbox_xywh[instance],
                people.keypoints[instance],
                people.skeleton,
                input_size_hw,
            )
            for instance, view in zip(*map(np.ndarray.tolist, batch), strict=True)
        ]
    )


def crop_people(
    people: People,
    images: TrainingImages,
    instances: NDArray[np.int64],
    image_to_crop: Affine,
    input_size_hw: SizeHW,
) -> TrainingBatch:
    """Cut crops from their images, and map the keypoints into them.

    instances: (B,), rows of the people's table.
    image_to_crop: (B, 2, 3), mirror included, to crops of ``input_size_hw``.

    Raises:
        ImageError: an image cannot be read, or has changed.
    """
    crops = np.empty((len(instances), *input_size_hw, 3), np.uint8)
    for row, instance in enumerate(instances.tolist()):
        image = images.read(int(people.image_index[instance]))
        crops[row] = warp_crop(image, image_to_crop[row], input_size_hw)
    return batch_of(people, crops, instances, image_to_crop, input_size_hw)


def batch_of(
    people: People,
    crops: NDArray[np.uint8],
    instances: NDArray[np.int64],
    image_to_crop: Affine,
    input_size_hw: SizeHW,
) -> TrainingBatch:
    """Return (B, H, W, 3) crops with their keypoints, which ``image_to_crop`` maps into them."""
    moved = move_keypoints(
        people.keypoints[instances], people.skeleton, image_to_crop, input_size_hw
    )
    scale = np.abs(np.linalg.det(image_to_crop[..., :2]))
    areas = (people.area[instances] * scale).astype(np.float32)
    return TrainingBatch(
        images=torch.from_numpy(crops),
        keypoints=torch.from_numpy(moved.keypoints),
        keypoint_weights=torch.from_numpy(moved.weights),
        is_labelled=torch.from_numpy(moved.is_labelled),
        areas=torch.from_numpy(areas),
    )


class MovedKeypoints(NamedTuple):
    """Annotated keypoints of B people in their crops."""

    keypoints: NDArray[np.float32]  # (B, K, 2) as (x, y), crop pixels; 0 where the weight is 0
    weights: NDArray[np.float32]  # (B, K), 1 where labelled and inside the crop, else 0
    is_labelled: NDArray[np.bool_]  # (B, K), inside the crop or not


def move_keypoints(
    keypoints: NDArray[np.float32], skeleton: Skeleton, image_to_crop: Affine, crop_size_hw: SizeHW
) -> MovedKeypoints:
    """Map annotated keypoints into their crops; left and right of a mirrored person are swapped.

    keypoints: (B, K, 3) as (x, y, visibility), image pixels; NaN where unlabelled.
    image_to_crop: (B, 2, 3), mirror included.
    """
    mirrored = is_mirroring(image_to_crop)[:, None, None]
    keypoints = np.where(mirrored, keypoints[:, list(skeleton.flip_indices)], keypoints)
    points = apply(image_to_crop, keypoints[..., :2])
    is_labelled = keypoints[..., 2] > 0
    weights = is_labelled & is_inside_crop(points, crop_size_hw)
    points = np.where(weights[..., None], points, 0.0)
    return MovedKeypoints(points.astype(np.float32), weights.astype(np.float32), is_labelled)


def is_inside_crop(points: NDArray[np.floating[Any]], crop_size_hw: SizeHW) -> NDArray[np.bool_]:
    """Return (B, K), true where 0 <= x <= W - 1 and 0 <= y <= H - 1; false for NaN."""
    limit = np.array([crop_size_hw[1] - 1, crop_size_hw[0] - 1])
    return np.asarray(((points >= 0) & (points <= limit)).all(axis=-1))


class BatchLoader:
    """Loads the batches of each epoch in worker processes or, with none, in this process.

    Workers live as long as the loader, so that their images stay cached. DistilError and StoreError
    are raised as they were in the worker, without a worker's traceback.

    start_method: how the workers are started. ``fork`` starts at once and inherits the people; it
        is safe as workers use no device and no torch kernel. A store in an object store cannot be
        read by a forked process and needs another method.
    processes: those that share the training; each loads its own rows of every batch.
    """

    def __init__(
        self,
        dataset: Dataset[TrainingBatch],
        order: BatchOrder,
        num_workers: int,
        device: torch.device,
        start_method: StartMethod = "fork",
        processes: Processes = ALONE,
    ) -> None:
        self._own = _OwnViews(order, processes)
        self._loader: DataLoader[TrainingBatch | DistilError | StoreError] = DataLoader(
            _BatchesOrErrors(dataset),
            batch_size=None,
            sampler=self._own,
            num_workers=num_workers,
            collate_fn=_unchanged,
            persistent_workers=num_workers > 0,
            prefetch_factor=4 if num_workers else None,
            worker_init_fn=_start_worker,
            multiprocessing_context=start_method if num_workers else None,
            pin_memory=device.type == "cuda",
            # The loader draws a seed per epoch, which must not advance torch's global generator.
            generator=torch.Generator(),
        )

    def batches_of_epoch(self, epoch: int, start: int = 0) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch in its order, from the one at position ``start`` on.

        Raises:
            DistilError: an image cannot be read, or has changed.
            StoreError: the store cannot be read.
        """
        self._own.epoch, self._own.start = epoch, start
        for loaded in self._loader:
            if isinstance(loaded, DistilError | StoreError):
                raise loaded
            yield loaded


class _OwnViews(Sampler[ViewBatch]):
    """This process's rows of the batches of an epoch."""

    def __init__(self, order: BatchOrder, processes: Processes) -> None:
        self._order, self._processes = order, processes
        self.epoch = 0
        """Epoch of the next iteration."""
        self.start = 0
        """Position of its first batch."""

    def __iter__(self) -> Iterator[ViewBatch]:
        return map(self._processes.own_views, self._order.batches(self.epoch, self.start))


class _BatchesOrErrors(Dataset["TrainingBatch | DistilError | StoreError"]):
    """Returns a batch, or the error instead of raising it: torch would change its message."""

    def __init__(self, dataset: Dataset[TrainingBatch]) -> None:
        self._dataset = dataset

    def __getitem__(self, batch: ViewBatch) -> TrainingBatch | DistilError | StoreError:
        try:
            return self._dataset[batch]
        except (DistilError, StoreError) as error:
            return error


def _unchanged(loaded: object) -> object:
    return loaded


def _start_worker(_: int) -> None:
    """Limit each worker to one thread, as there is one worker per core already.

    A worker gets a process group of its own, as a Ctrl-C reaches the whole group of a terminal and
    a SIGTERM of torchrun that of a process: the training still needs batches for the step that it
    ends with, and ends its workers itself. A worker whose training has died ends on its own.
    """
    os.setpgrp()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
