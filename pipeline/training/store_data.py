"""Batches for training from a teacher store, with the predictions that the loss terms read.

``ReplayedViewDataset`` shows the views of the store, so that student and teacher get the same
views, and ``MirroredViewDataset`` their mirror images too. ``CarriedViewDataset`` draws new views,
and carries into them what the teacher predicted of the plain crop. The files of the store are
opened in the process that reads them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from pipeline.coco.people import People
from pipeline.frames.carrying import carry_channels, carry_heatmaps, carry_keypoints
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import (
    Affine,
    SizeHW,
    apply,
    compose,
    crop_to_heatmap,
    invert,
    is_mirroring,
    mirror_affine,
    resize_affine,
    size_in_aspect,
)
from pipeline.frames.heatmaps import mirror_heatmaps
from pipeline.settings import ViewRecipe
from pipeline.teacher_store.averaging import AnyTeachers
from pipeline.teacher_store.keypoint_reading import StoredKeypoints
from pipeline.teacher_store.reader import StoredViews, TeacherStore, WideCrops
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.corrupt_views import Replacement, ReplacingReader
from pipeline.training.data import batch_of, crop_people, draw_batch, is_inside_crop
from pipeline.training.images import TrainingImages
from pipeline.training.settings import TeacherField
from pipeline.training.view_order import ViewBatch

PLAIN_VIEW = 0


class _Replayed(NamedTuple):
    """The arrays of a batch that a replaying training reads from a store."""

    image_to_crop: NDArray[np.float64]  # (B, 2, 3), to the stored crops
    crops: NDArray[np.uint8] | None  # (B, H, W, 3), RGB; None: images are read instead
    teacher: TeacherBatch | None


class ReplayedViewDataset(Dataset[TrainingBatch]):
    """The views of a teacher store, with the fields of the teacher that the loss terms read.

    people: those of the store; some labels may be hidden.
    images: images that the crops are cut from; None: the stored crops are used.
    reads: fields of the teacher that the loss terms read; no others are put into a batch.
    replace_among: augmented views among which a view whose heatmaps or stored crop cannot be read
        is replaced by another one of the same person, crop and keypoints included; None: such a
        view raises CorruptError.
    """

    def __init__(
        self,
        store: AnyTeachers,
        people: People,
        images: TrainingImages | None,
        input_size_hw: SizeHW,
        reads: frozenset[TeacherField],
        replace_among: range | None = None,
    ) -> None:
        self._store = store
        self._people = people
        self._images = images
        self._input_size_hw = input_size_hw
        stored_to_heatmap = crop_to_heatmap(
            store.heatmap_frame, store.input_size_hw, store.heatmap_size_hw
        )
        input_to_stored = resize_affine(input_size_hw, store.input_size_hw)
        self._crop_to_heatmap = compose(stored_to_heatmap, input_to_stored)
        self._stored_to_input = resize_affine(store.input_size_hw, input_size_hw)
        self._reads = reads
        self._replacing = (
            None if replace_among is None else ReplacingReader(store, replace_among, self._read)
        )

    def __getitem__(self, batch: ViewBatch) -> TrainingBatch:
        stored, replacements = self._read_or_replace(batch)
        crops = self._crop(batch.instances, stored)
        return replace(crops, teacher=stored.teacher, replacements=replacements)

    def _read_or_replace(self, batch: ViewBatch) -> tuple[_Replayed, tuple[Replacement, ...]]:
        if self._replacing is not None:
            return self._replacing.read(batch)
        return self._read(batch.instances, batch.views), ()

    def _read(self, instances: NDArray[np.int64], views: NDArray[np.int64]) -> _Replayed:
        store = self._store
        crops = store.read_crops(instances, views) if self._images is None else None
        if not self._reads:
            return _Replayed(store.read_image_to_crop(instances, views), crops, None)
        stored = _read_teacher(store, instances, views, self._reads)
        keypoints = apply(self._stored_to_input, stored.keypoints)
        fields = keypoint_fields(keypoints, stored.confidence, self._input_size_hw)
        if isinstance(stored, StoredViews) and "heatmaps" in self._reads:
            fields |= {"heatmaps": stored.heatmaps, "scale": stored.scale}
        if self._reads & {"keypoint_tokens", "visual_tokens"}:
            assert isinstance(store, TeacherStore)  # averaged teachers hold no tokens
            tokens = store.read_tokens(instances, views)
            named = {f"{kind}_tokens": values for kind, values in tokens.items()}
            fields |= {name: values for name, values in named.items() if name in self._reads}
        teacher = teacher_batch(self._crop_to_heatmap, fields)
        return _Replayed(stored.image_to_crop, crops, teacher)

    def _crop(self, instances: NDArray[np.int64], stored: _Replayed) -> TrainingBatch:
        """Cut the crops from their images, or resize the stored crops."""
        image_to_crop = compose(self._stored_to_input, stored.image_to_crop)
        people, size_hw = self._people, self._input_size_hw
        if self._images is not None:
            return crop_people(people, self._images, instances, image_to_crop, size_hw)
        crops = stored.crops
        assert crops is not None
        if size_hw != self._store.input_size_hw:
            crops = np.stack([warp_crop(crop, self._stored_to_input, size_hw) for crop in crops])
        return batch_of(people, crops, instances, image_to_crop, size_hw)


class MirroredViewDataset(ReplayedViewDataset):
    """The views of a teacher store and their mirror images, for a teacher with a flip test.

    View v is that of the store where v <= ``num_views``, and beyond it the mirror image of view
    v - ``num_views``. With the teacher f, the mirror M of crops and the flip test's mirror m of
    heatmaps, the averaged heatmap of a crop x is h(x) = (f(x) + m f(Mx)) / 2. As m m = 1, that of
    the mirrored crop, (f(Mx) + m f(x)) / 2, is m h(x): exact but for the ``flip_shift`` leftmost
    columns, which m m does not bring back and which are marked as unknown.

    The other arguments are those of ``ReplayedViewDataset``; tokens cannot be mirrored.
    """

    def __init__(
        self,
        store: AnyTeachers,
        people: People,
        images: TrainingImages | None,
        input_size_hw: SizeHW,
        reads: frozenset[TeacherField],
        num_views: int,
        flip_shift: int,
        replace_among: range | None = None,
    ) -> None:
        super().__init__(store, people, images, input_size_hw, reads, replace_among)
        self._num_views, self._flip_shift = num_views, flip_shift
        # The flip test mirrors cells: x' = Wh - 1 + shift - x, which crop pixels follow.
        mirror_of_cells = mirror_affine(store.heatmap_size_hw[1] + flip_shift)
        self._mirror_of_keypoints = compose(
            invert(self._crop_to_heatmap), compose(mirror_of_cells, self._crop_to_heatmap)
        )

    def __getitem__(self, batch: ViewBatch) -> TrainingBatch:
        is_mirrored = batch.views > self._num_views
        views = np.where(is_mirrored, batch.views - self._num_views, batch.views)
        stored, replacements = self._read_or_replace(ViewBatch(batch.instances, views))
        stored = self._mirror(stored, is_mirrored)
        crops = self._crop(batch.instances, stored)
        return replace(crops, teacher=stored.teacher, replacements=replacements)

    def _mirror(self, stored: _Replayed, is_mirrored: NDArray[np.bool_]) -> _Replayed:
        """Mirror some views of a batch; is_mirrored: (B,)."""
        image_to_crop = stored.image_to_crop.copy()
        mirror = mirror_affine(self._store.input_size_hw[1])
        image_to_crop[is_mirrored] = compose(mirror, image_to_crop[is_mirrored])
        crops = stored.crops
        if crops is not None:
            crops = np.where(is_mirrored[:, None, None, None], crops[:, :, ::-1], crops)
        teacher = stored.teacher
        if teacher is not None:
            teacher = self._mirror_teacher(teacher, is_mirrored)
        return _Replayed(image_to_crop, crops, teacher)

    def _mirror_teacher(
        self, teacher: TeacherBatch, is_mirrored: NDArray[np.bool_]
    ) -> TeacherBatch:
        flip_indices = self._people.skeleton.flip_indices
        assert teacher.keypoints is not None  # every store has them
        assert teacher.confidences is not None
        keypoints = teacher.keypoints.numpy().astype(np.float64)
        keypoints[is_mirrored] = apply(self._mirror_of_keypoints, keypoints[is_mirrored])
        fields = keypoint_fields(
            carry_channels(keypoints, is_mirrored, flip_indices),
            carry_channels(teacher.confidences.numpy(), is_mirrored, flip_indices),
            self._input_size_hw,
        )
        if teacher.heatmaps is not None:
            assert teacher.scale is not None  # it is read with them
            heatmaps, shift = teacher.heatmaps.numpy().copy(), self._flip_shift
            mirrored = mirror_heatmaps(heatmaps[is_mirrored], flip_indices, shift)
            mirrored[..., :shift] = 0
            heatmaps[is_mirrored] = mirrored
            scale = carry_channels(teacher.scale.numpy(), is_mirrored, flip_indices)
            fields |= {"heatmaps": heatmaps, "scale": scale}
            if shift:
                is_known = np.ones((len(heatmaps), *heatmaps.shape[2:]), np.bool_)
                is_known[is_mirrored, :, :shift] = False
                fields["is_known"] = is_known
        return teacher_batch(self._crop_to_heatmap, fields)


class _Carried(NamedTuple):
    """The arrays of a batch that a carrying training reads from a store."""

    crops: WideCrops | None  # None: images are read instead
    predictions: StoredKeypoints | None  # None: no loss term reads a teacher


class CarriedViewDataset(Dataset[TrainingBatch]):
    """New views of the people of a store; the teacher's predictions are carried into them.

    people: those of the store; some labels may be hidden.
    images: images that the crops are cut from; None: they are cut from the stored crops.
    recipe, seed: distribution and seed of the views.
    input_size_hw: size of the views, of any aspect.
    reads: fields of the teacher that the loss terms read; no others are put into a batch.
    heatmap_size_hw: size of the carried heatmaps; None: that of the store's, in the views' aspect.
    drawn_size_hw: size at which views are drawn, to be resized; None: that of the views.
    replace_among: views of the store among which a plain view that cannot be read is replaced by
        another one of the same person; None: it raises CorruptError.
    """

    def __init__(
        self,
        store: AnyTeachers,
        people: People,
        images: TrainingImages | None,
        recipe: ViewRecipe,
        seed: int,
        input_size_hw: SizeHW,
        reads: frozenset[TeacherField],
        heatmap_size_hw: SizeHW | None = None,
        replace_among: range | None = None,
        drawn_size_hw: SizeHW | None = None,
    ) -> None:
        self._store = store
        self._people = people
        self._images = images
        self._recipe = recipe
        self._seed = seed
        self._input_size_hw = input_size_hw
        self._drawn_size_hw = drawn_size_hw or input_size_hw
        self._reads = reads
        self._crop_to_heatmap = crop_to_heatmap(
            store.heatmap_frame, store.input_size_hw, store.heatmap_size_hw
        )
        self._heatmap_size_hw = heatmap_size_hw or size_in_aspect(
            store.heatmap_size_hw, input_size_hw
        )
        self._view_to_heatmap = crop_to_heatmap(
            store.heatmap_frame, input_size_hw, self._heatmap_size_hw
        )
        self._replacing = (
            None if replace_among is None else ReplacingReader(store, replace_among, self._read)
        )
        self._read_held: Callable[[NDArray[np.int64]], _Carried] | None = None

    def read_plain(self, instances: NDArray[np.int64]) -> Any:
        """Read what views of these people are drawn from: arrays by person, in nested records."""
        return self._read(instances, np.full_like(instances, PLAIN_VIEW))

    def hold(self, read_held: Callable[[NDArray[np.int64]], Any]) -> None:
        """Take what ``read_plain`` returns from a function of the rows, and no more from files."""
        self._read_held = read_held

    def __getitem__(self, batch: ViewBatch) -> TrainingBatch:
        plain = ViewBatch(batch.instances, np.full_like(batch.views, PLAIN_VIEW))
        replacements: tuple[Replacement, ...] = ()
        if self._replacing is not None:
            stored, replacements = self._replacing.read(plain)
        else:
            stored = self._read(*plain)
        size_hw, drawn_hw = self._input_size_hw, self._drawn_size_hw
        image_to_view = draw_batch(self._people, self._recipe, self._seed, batch, drawn_hw)
        if drawn_hw != size_hw:
            image_to_view = compose(resize_affine(drawn_hw, size_hw), image_to_view)
        if stored.crops is None:
            assert self._images is not None
            crops = crop_people(self._people, self._images, batch.instances, image_to_view, size_hw)
        else:
            crop_to_view = compose(image_to_view, invert(stored.crops.image_to_wide_crop))
            pairs = zip(stored.crops.crops, crop_to_view, strict=True)
            cut = [warp_crop(crop, affine, size_hw) for crop, affine in pairs]
            crops = batch_of(self._people, np.stack(cut), batch.instances, image_to_view, size_hw)
        predictions = stored.predictions
        teacher = None if predictions is None else self._carry(predictions, image_to_view)
        return replace(crops, teacher=teacher, replacements=replacements)

    def _read(self, instances: NDArray[np.int64], views: NDArray[np.int64]) -> _Carried:
        if self._read_held is not None:
            return self._read_held(instances)
        store = self._store
        reads = self._reads
        predictions = _read_teacher(store, instances, views, reads) if reads else None
        if self._images is not None:
            return _Carried(None, predictions)
        return _Carried(store.read_wide_crops(instances, views), predictions)

    def _carry(self, stored: StoredKeypoints, image_to_view: Affine) -> TeacherBatch:
        flip_indices = self._people.skeleton.flip_indices
        crop_to_view = compose(image_to_view, invert(stored.image_to_crop))
        keypoints = carry_keypoints(stored.keypoints, crop_to_view, flip_indices)
        is_mirrored = is_mirroring(crop_to_view)
        confidences = carry_channels(stored.confidence, is_mirrored, flip_indices)
        fields = keypoint_fields(keypoints, confidences, self._input_size_hw)
        if isinstance(stored, StoredViews) and "heatmaps" in self._reads:
            carried = carry_heatmaps(
                stored.heatmaps,
                crop_to_view,
                self._crop_to_heatmap,
                self._view_to_heatmap,
                self._heatmap_size_hw,
                flip_indices,
            )
            fields |= {
                "heatmaps": carried.heatmaps,
                "is_known": carried.is_known,
                "scale": carry_channels(stored.scale, is_mirrored, flip_indices),
            }
        return teacher_batch(self._view_to_heatmap, fields)


def _read_teacher(
    store: AnyTeachers,
    instances: NDArray[np.int64],
    views: NDArray[np.int64],
    reads: frozenset[TeacherField],
) -> StoredKeypoints:
    """Read views of a teacher, with heatmaps if a loss term reads them."""
    if "heatmaps" in reads:
        return store.read(instances, views)
    return store.read_keypoints(instances, views)


def keypoint_fields(
    keypoints: NDArray[np.float64], confidences: NDArray[np.float32], crop_size_hw: SizeHW
) -> dict[str, NDArray[Any]]:
    """Return the fields of ``TeacherBatch`` that hold a teacher's keypoints, (B, K, 2)."""
    return {
        "keypoints": keypoints.astype(np.float32),
        "keypoint_weights": is_inside_crop(keypoints, crop_size_hw).astype(np.float32),
        "confidences": confidences,
    }


def teacher_batch(view_to_heatmap: Affine, fields: dict[str, NDArray[Any]]) -> TeacherBatch:
    """Return the predictions of B crops as tensors.

    view_to_heatmap: (2, 3), pixels of the student's crops to cells.
    fields: those of ``TeacherBatch`` by name, keypoints among them.
    """
    affines = np.tile(view_to_heatmap.astype(np.float32), (len(fields["keypoints"]), 1, 1))
    tensors = {name: torch.from_numpy(values) for name, values in fields.items()}
    return TeacherBatch(torch.from_numpy(affines), **tensors)
