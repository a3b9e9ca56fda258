"""Batches for training: crops and keypoints, and a teacher's heatmaps where there is a store.

Two data sets return the same record. ``FreshViewDataset`` draws the view it is asked for.
``StoreViewDataset`` replays the views of a teacher store, so that student and teacher look at
identical crops. Both are asked for a whole batch at once and know nothing of epochs or order.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.coco.people import People, Skeleton
from pipeline.errors import DistilError
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import Affine, SizeHW, apply, compose, is_mirroring, resize_affine
from pipeline.frames.views import draw_view
from pipeline.settings import ViewRecipe
from pipeline.teacher_store.averaging import AnyTeachers
from pipeline.training.block_order import BlockOrder
from pipeline.training.images import TrainingImages
from pipeline.training.replacement import ReadBatch, Replacement, ReplacingReader
from pipeline.training.settings import OnCorrupt
from pipeline.training.view_order import ViewBatch, ViewOrder
from store_schemas.errors import StoreError

StartMethod = Literal["fork", "forkserver", "spawn"]


class TrainingBatch(NamedTuple):
    """What one step learns from."""

    images: Tensor  # (B, H, W, 3) uint8, RGB, the student's crop
    keypoints: Tensor  # (B, K, 2) as (x, y), crop pixels; 0 where the weight is 0
    keypoint_weights: Tensor  # (B, K) in {0, 1}: labelled and inside the crop
    heatmaps: Tensor | None = None  # (B, K, Hh, Wh) uint8
    scale: Tensor | None = None  # (B, K), heat = heatmaps * scale
    replacements: Sequence[Replacement] = ()  # views that stand in the place of corrupt ones


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

    images: None: crops are the stored ones.
    on_corrupt: what a view whose heatmaps or stored crop cannot be read is: an error, or replaced,
        crop and keypoints included, by another view of the same person.
    """

    def __init__(
        self,
        store: AnyTeachers,
        images: TrainingImages | None,
        input_size_hw: SizeHW,
        reads_heatmaps: bool,
        on_corrupt: OnCorrupt = "raise",
    ) -> None:
        self._store = store
        self._images = images
        self._input_size_hw = input_size_hw
        self._reads_heatmaps = reads_heatmaps
        reads_crops = images is None
        self._replacing = (
            ReplacingReader(store, reads_crops=reads_crops) if on_corrupt == "skip" else None
        )

    def __getitem__(self, batch: ViewBatch) -> TrainingBatch:
        if not self._reads_heatmaps and (self._images is not None or self._replacing is None):
            affines = self._store.read_image_to_crop(batch.instances, batch.views)
            return self._crop(batch, affines, self._read_crops(batch))
        _, stored, replacements, crops = self._read(batch)
        found = self._crop(batch, stored.image_to_crop, crops)._replace(replacements=replacements)
        if not self._reads_heatmaps:
            return found
        return found._replace(
            heatmaps=torch.from_numpy(stored.heatmaps), scale=torch.from_numpy(stored.scale)
        )

    def _read(self, batch: ViewBatch) -> ReadBatch:
        if self._replacing is not None:
            return self._replacing.read(batch)
        stored = self._store.read(batch.instances, batch.views)
        return ReadBatch(batch.views, stored, (), self._read_crops(batch))

    def _read_crops(self, batch: ViewBatch) -> NDArray[np.uint8] | None:
        if self._images is not None:
            return None
        return self._store.read_crops(batch.instances, batch.views)

    def _crop(
        self, batch: ViewBatch, stored: Affine, crops: NDArray[np.uint8] | None
    ) -> TrainingBatch:
        """Cut the views out of their images, or resize their stored crops."""
        stored_to_input = resize_affine(self._store.input_size_hw, self._input_size_hw)
        image_to_crop = compose(stored_to_input, stored)
        people, size_hw = self._store.people, self._input_size_hw
        if self._images is not None:
            return crop_people(people, self._images, batch.instances, image_to_crop, size_hw)
        assert crops is not None
        if size_hw != self._store.input_size_hw:
            crops = np.stack([warp_crop(crop, stored_to_input, size_hw) for crop in crops])
        return _batch_of(people, crops, batch.instances, image_to_crop, size_hw)


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
    return _batch_of(people, crops, instances, image_to_crop, input_size_hw)


def _batch_of(
    people: People,
    crops: NDArray[np.uint8],
    instances: NDArray[np.int64],
    image_to_crop: Affine,
    input_size_hw: SizeHW,
) -> TrainingBatch:
    """Return crops with the keypoints that were moved along; ``image_to_crop`` leads to them."""
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

    Workers live as long as the loader, so that their images stay cached. An error written for
    people comes out as it was raised, not as a worker's traceback.

    start_method: of the workers. A fork starts at once and inherits the people; the workers touch
        no device and no torch kernel. A store in an object store needs another.
    """

    def __init__(
        self,
        dataset: Dataset[TrainingBatch],
        order: ViewOrder | BlockOrder,
        num_workers: int,
        device: torch.device,
        start_method: StartMethod = "fork",
    ) -> None:
        self._order = order
        self._loader: DataLoader[TrainingBatch | DistilError | StoreError] = DataLoader(
            _Answers(dataset),
            batch_size=None,
            sampler=order,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            persistent_workers=num_workers > 0,
            prefetch_factor=4 if num_workers else None,
            worker_init_fn=_start_worker,
            multiprocessing_context=start_method if num_workers else None,
            pin_memory=device.type != "cpu",
            # The loader draws a seed per epoch; not from the generator that training uses.
            generator=torch.Generator(),
        )

    def batches_of_epoch(self, epoch: int) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch, in its order.

        Raises:
            DistilError: an image cannot be read, or has changed.
            StoreError: the store cannot be read.
        """
        self._order.epoch = epoch
        for answer in self._loader:
            if isinstance(answer, DistilError | StoreError):
                raise answer
            yield answer


class _Answers(Dataset["TrainingBatch | DistilError | StoreError"]):
    """Batches, or the errors that stand in their place: torch would wrap them in its own text."""

    def __init__(self, dataset: Dataset[TrainingBatch]) -> None:
        self._dataset = dataset

    def __getitem__(self, batch: ViewBatch) -> TrainingBatch | DistilError | StoreError:
        try:
            return self._dataset[batch]
        except (DistilError, StoreError) as error:
            return error


def _as_it_is(answer: object) -> object:
    return answer


def _start_worker(_: int) -> None:
    """Keep each worker to one thread: there is one per core already."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
