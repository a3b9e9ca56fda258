"""Batches for training: crops, keypoints, and the teacher's predictions that the loss terms read.

Two data sets return the same record. ``FreshViewDataset`` draws each view when it is read.
``StoreViewDataset`` replays the views of a teacher store, so that student and teacher get the same
views. Both are indexed by a whole batch, and neither knows of epochs or their order.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from pipeline.coco.people import People, Skeleton
from pipeline.errors import DistilError
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import (
    Affine,
    SizeHW,
    apply,
    compose,
    crop_to_heatmap,
    is_mirroring,
    resize_affine,
)
from pipeline.frames.views import draw_view
from pipeline.settings import ViewRecipe
from pipeline.teacher_store.averaging import AnyTeachers
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.corrupt_views import Replacement, ReplacingReader
from pipeline.training.images import TrainingImages
from pipeline.training.settings import TeacherField
from pipeline.training.view_order import BlockOrder, ViewBatch, ViewOrder
from store_schemas.errors import StoreError

StartMethod = Literal["fork", "forkserver", "spawn"]


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


class _StoredBatch(NamedTuple):
    """The arrays of a batch that a training reads from a store."""

    image_to_crop: NDArray[np.float64]  # (B, 2, 3), to the stored crops
    crops: NDArray[np.uint8] | None  # (B, H, W, 3), RGB; None: images are read instead
    teacher: TeacherBatch | None


class StoreViewDataset(Dataset[TrainingBatch]):
    """The views of a teacher store, with the fields of the teacher that the loss terms read.

    The files of the store are opened in the process that reads them.

    images: images that the crops are cut from; None: the stored crops are used.
    reads: fields of the teacher that the loss terms read; no others are put into a batch.
    replace_among: number of augmented views, from 1 on, among which a view whose heatmaps or stored
        crop cannot be read is replaced by another one of the same person, crop and keypoints
        included; None: such a view raises CorruptError.
    """

    def __init__(
        self,
        store: AnyTeachers,
        images: TrainingImages | None,
        input_size_hw: SizeHW,
        reads: frozenset[TeacherField],
        replace_among: int | None = None,
    ) -> None:
        self._store = store
        self._images = images
        self._input_size_hw = input_size_hw
        stored_to_heatmap = crop_to_heatmap(
            store.heatmap_frame, store.input_size_hw, store.heatmap_size_hw
        )
        input_to_stored = resize_affine(input_size_hw, store.input_size_hw)
        self._crop_to_heatmap = compose(stored_to_heatmap, input_to_stored).astype(np.float32)
        self._stored_to_input = resize_affine(store.input_size_hw, input_size_hw)
        self._reads = reads
        self._replacing = (
            None if replace_among is None else ReplacingReader(store, replace_among, self._read)
        )

    def __getitem__(self, batch: ViewBatch) -> TrainingBatch:
        replacements: tuple[Replacement, ...] = ()
        if self._replacing is not None:
            stored, replacements = self._replacing.read(batch)
        else:
            stored = self._read(batch.instances, batch.views)
        crops = self._crop(batch.instances, stored)
        return replace(crops, teacher=stored.teacher, replacements=replacements)

    def _read(self, instances: NDArray[np.int64], views: NDArray[np.int64]) -> _StoredBatch:
        store = self._store
        crops = store.read_crops(instances, views) if self._images is None else None
        if not self._reads:
            return _StoredBatch(store.read_image_to_crop(instances, views), crops, None)
        stored = store.read(instances, views)
        fields: dict[str, NDArray[Any]] = {}
        if "heatmaps" in self._reads:
            fields |= {"heatmaps": stored.heatmaps, "scale": stored.scale}
        if "keypoints" in self._reads:
            keypoints = apply(self._stored_to_input, stored.keypoints).astype(np.float32)
            fields |= {"keypoints": keypoints, "confidences": stored.confidence}
        if self._reads & {"keypoint_tokens", "visual_tokens"}:
            assert isinstance(store, TeacherStore)  # averaged teachers hold no tokens
            tokens = store.read_tokens(instances, views)
            named = {f"{kind}_tokens": values for kind, values in tokens.items()}
            fields |= {name: values for name, values in named.items() if name in self._reads}
        affines = np.tile(self._crop_to_heatmap, (len(instances), 1, 1))
        tensors = {name: torch.from_numpy(values) for name, values in fields.items()}
        teacher = TeacherBatch(torch.from_numpy(affines), **tensors)
        return _StoredBatch(stored.image_to_crop, crops, teacher)

    def _crop(self, instances: NDArray[np.int64], stored: _StoredBatch) -> TrainingBatch:
        """Cut the crops from their images, or resize the stored crops."""
        image_to_crop = compose(self._stored_to_input, stored.image_to_crop)
        people, size_hw = self._store.people, self._input_size_hw
        if self._images is not None:
            return crop_people(people, self._images, instances, image_to_crop, size_hw)
        crops = stored.crops
        assert crops is not None
        if size_hw != self._store.input_size_hw:
            crops = np.stack([warp_crop(crop, self._stored_to_input, size_hw) for crop in crops])
        return _batch_of(people, crops, instances, image_to_crop, size_hw)


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
    return _batch_of(people, crops, instances, image_to_crop, input_size_hw)


def _batch_of(
    people: People,
    crops: NDArray[np.uint8],
    instances: NDArray[np.int64],
    image_to_crop: Affine,
    input_size_hw: SizeHW,
) -> TrainingBatch:
    """Return (B, H, W, 3) crops with their keypoints, which ``image_to_crop`` maps into them."""
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
    """Map annotated keypoints into their crops; left and right of a mirrored person are swapped.

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
    """Loads the batches of each epoch in worker processes or, with none, in this process.

    Workers live as long as the loader, so that their images stay cached. DistilError and StoreError
    are raised as they were in the worker, without a worker's traceback.

    start_method: how the workers are started. ``fork`` starts at once and inherits the people; it
        is safe as workers use no device and no torch kernel. A store in an object store cannot be
        read by a forked process and needs another method.
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
            _BatchesOrErrors(dataset),
            batch_size=None,
            sampler=order,
            num_workers=num_workers,
            collate_fn=_unchanged,
            persistent_workers=num_workers > 0,
            prefetch_factor=4 if num_workers else None,
            worker_init_fn=_start_worker,
            multiprocessing_context=start_method if num_workers else None,
            pin_memory=device.type != "cpu",
            # The loader draws a seed per epoch, which must not advance torch's global generator.
            generator=torch.Generator(),
        )

    def batches_of_epoch(self, epoch: int) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch, in its order.

        Raises:
            DistilError: an image cannot be read, or has changed.
            StoreError: the store cannot be read.
        """
        self._order.epoch = epoch
        for loaded in self._loader:
            if isinstance(loaded, DistilError | StoreError):
                raise loaded
            yield loaded


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
    """Limit each worker to one thread, as there is one worker per core already."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
