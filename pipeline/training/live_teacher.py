"""Views that the teacher itself predicts in every step of a training: the teacher in the loop.

They are views of the store, or drawn anew as stage one would draw them, at the teacher's size.
Loader workers cut the crops of student and teacher; the teacher, which wrote the store and is
compared with it, predicts and decodes them in the training's process, by the code of stage one. It
is for proof and comparison: a store gives the same predictions without the teacher.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from pipeline.errors import ConfigError
from pipeline.frames.geometry import SizeHW, apply, compose, resize_affine
from pipeline.models.token_encoder import TokenShape
from pipeline.settings import DeviceName, ViewRecipe
from pipeline.teacher_store.averaging import AnyTeachers
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers.stored_teacher import open_stored_teacher
from pipeline.teachers.teacher import Teacher
from pipeline.training.batch import TrainingBatch
from pipeline.training.data import TrainingDataset
from pipeline.training.settings import LiveTeacherSettings, TeacherField
from pipeline.training.store_data import (
    CarriedViewDataset,
    ReplayedViewDataset,
    keypoint_fields,
    teacher_batch,
)
from pipeline.training.stored_people import StoredPeople, require_same_aspect
from pipeline.training.view_order import ViewBatch

_NOTHING: frozenset[TeacherField] = frozenset()


@dataclass(frozen=True)
class LiveViews(StoredPeople):
    """People of a teacher store under views that the live teacher predicts."""

    data: LiveTeacherSettings
    teacher: Teacher

    @property
    def num_views(self) -> int | None:
        return self.data.num_views

    @property
    def views_read(self) -> range:
        """Stored views whose crops may be read; of new ones, the plain view's."""
        return range(1) if self.num_views is None else range(1, 1 + self.num_views)

    @property
    def padding(self) -> float:
        if self.num_views is None:
            return self.data.recipe.padding
        return ViewRecipe.model_validate(self.store.views.recipe).padding

    @property
    def token_shape(self) -> TokenShape | None:
        """Width and grid of the teacher's tokens; None: it has none."""
        shape = self.teacher.network.token_shape
        return None if shape is None else TokenShape(*shape)

    def heatmap_size_hw(self, input_size_hw: SizeHW) -> SizeHW:
        """Return the size of the teacher's heatmaps."""
        return self.teacher.heatmap_size_hw

    def dataset(
        self, input_size_hw: SizeHW, token_shape: TokenShape | None = None
    ) -> TrainingDataset:
        """Return a data set of the views with the crops that the teacher predicts.

        Raises:
            ConfigError: the student's input has another aspect than the teacher's, its tokens
                another shape, or the settings of the data do not fit a live teacher.
        """
        require_same_aspect(self.store, input_size_hw)
        _require_tokens(self.reads, self.token_shape, token_shape)
        if self.data.on_corrupt == "skip":
            raise ConfigError(
                "data.on_corrupt must be raise with data.view_policy teacher-in-loop, which reads "
                "no heatmaps that could be corrupt; leave it out"
            )
        images, size_hw = self.images(), self.teacher.input_size_hw
        if self.num_views is None:
            drawn = (self.store, self.people, images, self.data.recipe, self.seed)
            students: TrainingDataset = CarriedViewDataset(
                *drawn, input_size_hw, _NOTHING, drawn_size_hw=size_hw
            )
            if size_hw == input_size_hw:
                return LiveViewDataset(students, None)
            return LiveViewDataset(students, CarriedViewDataset(*drawn, size_hw, _NOTHING))
        stored = (self.store, self.people)
        students = ReplayedViewDataset(*stored, images, input_size_hw, _NOTHING)
        # Where crops are stored, the teacher predicted the decoded JPEG.
        predicted = images if self.store.optional.crops is None else None
        if size_hw == input_size_hw and predicted is images:
            return LiveViewDataset(students, None)
        return LiveViewDataset(students, ReplayedViewDataset(*stored, predicted, size_hw, _NOTHING))

    def with_targets(self, input_size_hw: SizeHW) -> Callable[[TrainingBatch], TrainingBatch]:
        """Return what adds the teacher's predictions to a batch of ``dataset``."""
        flip_indices = self.people.skeleton.flip_indices
        return LiveTargets(self.teacher, flip_indices, input_size_hw, self.reads)


class LiveViewDataset(Dataset[TrainingBatch]):
    """Batches with the crops of students and those of the same views that a teacher predicts.

    teachers: data set of the teacher's crops; None: they are the student's.
    """

    def __init__(self, students: TrainingDataset, teachers: TrainingDataset | None) -> None:
        self._students, self._teachers = students, teachers

    def __getitem__(self, views: ViewBatch) -> TrainingBatch:
        batch = self._students[views]
        crops = batch.images if self._teachers is None else self._teachers[views].images
        return replace(batch, teacher_crops=crops)


@dataclass(frozen=True)
class LiveTargets:
    """Adds a teacher's predictions to batches, as they would have been read from a store."""

    teacher: Teacher
    flip_indices: tuple[int, ...]
    input_size_hw: SizeHW
    """Size of the student's crops."""
    reads: frozenset[TeacherField]
    """Fields of the teacher that the loss terms read; none: the teacher predicts nothing."""

    def __call__(self, batch: TrainingBatch) -> TrainingBatch:
        """Return a batch whose crops the teacher has predicted.

        Raises:
            TeacherError: a term reads tokens, and the teacher has none.
        """
        crops = batch.teacher_crops
        if crops is None or not self.reads:
            return replace(batch, teacher_crops=None)
        tokens_read = self.reads & {"keypoint_tokens", "visual_tokens"}
        prediction = self.teacher.predict(crops.cpu().numpy(), self.flip_indices, bool(tokens_read))
        output = self.teacher.decode(prediction)
        size_hw = self.teacher.input_size_hw
        keypoints = apply(resize_affine(size_hw, self.input_size_hw), output.keypoints)
        fields = keypoint_fields(keypoints, output.confidences, self.input_size_hw)
        if "heatmaps" in self.reads:
            fields["heatmaps"] = output.heatmaps
        for name in tokens_read:
            fields[name] = (output.tokens or {})[name.removesuffix("_tokens")]
        student_to_teacher = resize_affine(self.input_size_hw, size_hw)
        to_heatmap = compose(self.teacher.crop_to_heatmap, student_to_teacher)
        return replace(batch, teacher=teacher_batch(to_heatmap, fields), teacher_crops=None)


def open_teacher_of(store: AnyTeachers, path: Path | None, device: DeviceName) -> Teacher:
    """Open the teacher that wrote a store, under the settings that the store records.

    path: None takes the file or folder that the store was written from.

    Raises:
        ConfigError: the store is an average of teachers, or the teacher is not there.
        TeacherError: it cannot be loaded.
        IdentityError: it is not the teacher of the store, or was changed; names the field.
    """
    if not isinstance(store, TeacherStore):
        raise ConfigError(
            f"data.view_policy teacher-in-loop needs one teacher, got the average of "
            f"{store.teacher}; name one of them by data.teachers"
        )
    if path is None:
        recorded = store.provenance.get("teacher")
        if not isinstance(recorded, str) or not Path(recorded).exists():
            raise ConfigError(
                f"data.teacher must name the teacher that wrote {store.path}, which is not at "
                f"{recorded or 'a recorded place'}; give --teacher"
            )
        path = Path(recorded)
    # The batches are those of stage one, so that not even the last bits differ on that machine.
    return open_stored_teacher(
        path,
        store.identity,
        store.execution_recipe,
        num_threads=torch.get_num_threads(),
        device=device,
    )


def _require_tokens(
    reads: frozenset[TeacherField], teachers: TokenShape | None, students: TokenShape | None
) -> None:
    """Refuse tokens that the teacher does not have, or whose shape is not the student's."""
    for field in sorted(reads & {"keypoint_tokens", "visual_tokens"}):
        fits = teachers is not None and students is not None and teachers.dim == students.dim
        if field == "visual_tokens":
            fits = fits and teachers == students
        if not fits:
            raise ConfigError(
                f"{field} must have one shape in teacher and student, got {_in_words(teachers)} "
                f"and {_in_words(students)}; choose a student of the teacher's size, set "
                "loss.token_projector, or the weight of the term to 0"
            )


def _in_words(shape: TokenShape | None) -> str:
    if shape is None:
        return "no tokens"
    return f"{shape.dim} channels on {shape.grid_hw[0]} x {shape.grid_hw[1]} patches"
