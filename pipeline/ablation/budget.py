"""What a training of a sweep shows, reads, writes and takes, known before it begins."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.models.cost import count_parameters
from pipeline.models.pose_networks import build_student
from pipeline.settings import PeopleSettings
from pipeline.storage.folder import open_folder
from pipeline.teacher_store.inspection import summarise_store
from pipeline.training.settings import (
    FreshViewSettings,
    LiveTeacherSettings,
    StoreSettings,
    TeacherField,
)
from pipeline.training.sources import FreshViews, read_fresh_views
from pipeline.training.store_sources import open_store_views
from pipeline.training.stored_people import StoredPeople
from store_schemas.root_metadata import read_entries

_ARRAYS_OF_FIELD: dict[TeacherField, tuple[str, ...]] = {
    "heatmaps": ("heatmaps", "outputs"),  # outputs hold the scale of each map
    "keypoints": ("outputs", "keypoints", "confidences"),  # those that the store's profile has
    "keypoint_tokens": ("keypoint_tokens", "keypoint_token_scale"),
    "visual_tokens": ("visual_tokens", "visual_token_scale"),
}
_COPIES_ON_DISK = 5
"""Last and best weights; and the training state, with weights and two moments of each."""
_TIMED_STEPS = 3


@dataclass(frozen=True)
class TrainingSource:
    """Where a training takes its people, views and teacher from."""

    store: str | None
    annotations: Path | None
    images: Path | None
    people: PeopleSettings
    data: StoreSettings | FreshViewSettings
    reads: frozenset[TeacherField]
    """Fields of the teacher that the loss terms read."""

    def open(self) -> FreshViews | StoredPeople:
        """Open it as ``train-student`` does.

        Raises:
            DistilError, StoreError: it does not fit the settings.
        """
        if not isinstance(self.data, FreshViewSettings):
            assert self.store is not None  # its settings are those of a store
            return open_store_views(self.store, self.images, self.data, self.reads)
        assert self.annotations is not None  # a training has one of the two
        assert self.images is not None
        return read_fresh_views(self.annotations, self.images, self.people, self.data, seed=0)

    def bytes_per_view(self) -> float | None:
        """Return the bytes of the store's arrays that are read of a view; None without a store.

        Images or crops are not counted: every training needs them, with or without a teacher.
        """
        if self.store is None or isinstance(self.data, FreshViewSettings):
            return None
        if isinstance(self.data, LiveTeacherSettings):
            return 0.0
        arrays = {array for field in self.reads for array in _ARRAYS_OF_FIELD[field]}
        folder = open_folder(self.store)
        teachers = self.data.teachers or tuple(read_entries(folder))
        total = 0.0
        for teacher in teachers:
            (found,) = summarise_store(folder, teacher).teachers
            sizes = [found.array_bytes.get(array, 0) for array in arrays]
            total += sum(sizes) / max(1, found.num_written)
        return total


def epochs_for(person_views: int, steps_per_epoch: int, batch_size: int) -> int:
    """Return the number of whole epochs whose views are nearest to a number, at least one."""
    return max(1, round(person_views / (steps_per_epoch * batch_size)))


def bytes_on_disk(architecture: str, num_keypoints: int) -> int:
    """Return the bytes of a run folder's checkpoints: the rest of it is small."""
    with torch.device("meta"):
        network = build_student(architecture, num_keypoints)
    return _COPIES_ON_DISK * 4 * count_parameters(network)


def seconds_per_view(
    architecture: str, num_keypoints: int, batch_size: int, device: torch.device
) -> float:
    """Measure a student's forward and backward pass on random crops, without loading or losses.

    batch_size: at most 32 crops are used.
    """
    network = build_student(architecture, num_keypoints).to(device).train()
    height, width = network.input_size_hw
    images = torch.rand(min(batch_size, 32), 3, height, width, device=device)
    seconds = []
    for _ in range(1 + _TIMED_STEPS):
        began = time.perf_counter()
        output = network(images)
        loss = output.keypoints.sum() + output.scores.sum()
        torch.autograd.backward(loss)
        if device.type != "cpu":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:]) / len(images)


def makespan(seconds: Sequence[float], at_once: int) -> float:
    """Return how long jobs take that are begun in their order, some at once."""
    ends = [0.0] * at_once
    for job in seconds:
        first = min(range(at_once), key=ends.__getitem__)
        ends[first] += job
    return max(ends)
