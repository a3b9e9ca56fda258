"""Poses in crops, by a student or a teacher under its settings, and poses of people in images."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.poses import NO_ANNOTATION, PosePredictions
from pipeline.export.student_file import StudentFile
from pipeline.frames.crop_stream import batched_crops, requests_by_image, stream_crops
from pipeline.frames.geometry import SizeHW, apply, box_to_crop, invert, padded_box_size
from pipeline.frames.pixels import PixelNormalisation
from pipeline.models.pose_networks import Student
from pipeline.settings import PADDING
from pipeline.teachers.teacher import Teacher


@dataclass(frozen=True)
class CropPoses:
    """Poses of a batch of crops."""

    keypoints: NDArray[np.float64]  # (B, K, 2) as (x, y), crop pixels
    scores: NDArray[np.float64]  # (B, K)
    sigmas: NDArray[np.float64] | None = None
    """(B, K, 2) as (x, y), cells of the teacher's heatmaps; None: the network has none."""


class PoseEstimator(Protocol):
    """Anything that finds the keypoints of a person in a crop."""

    @property
    def input_size_hw(self) -> SizeHW: ...

    def estimate(self, crops: NDArray[np.uint8]) -> CropPoses:
        """Return the poses in (B, H, W, 3) uint8 RGB crops."""
        ...


@dataclass(frozen=True)
class TeacherEstimator:
    """A heatmap teacher under its own settings (flips, frame, decoding); heat is the score."""

    teacher: Teacher
    flip_indices: tuple[int, ...]

    @property
    def input_size_hw(self) -> SizeHW:
        return self.teacher.input_size_hw

    def estimate(self, crops: NDArray[np.uint8]) -> CropPoses:
        output = self.teacher.predict_and_decode(crops, self.flip_indices)
        return CropPoses(output.keypoints, output.confidences.astype(np.float64))


@dataclass(frozen=True)
class StudentEstimator:
    """A regression student; the flip test averages aligned points and swapped scores."""

    network: Student
    flip_indices: tuple[int, ...]
    flip_test: bool = True
    device: str = "cpu"
    pixels: PixelNormalisation = field(default_factory=PixelNormalisation)

    @property
    def input_size_hw(self) -> SizeHW:
        return self.network.input_size_hw

    def estimate(self, crops: NDArray[np.uint8]) -> CropPoses:
        return _regress(self._forward, crops, self.flip_indices if self.flip_test else None)

    @torch.inference_mode()
    def _forward(self, crops: NDArray[np.uint8]) -> CropPoses:
        images = self.pixels.normalise(torch.from_numpy(crops).to(self.device))
        was_training = self.network.training
        self.network.eval()
        output = self.network(images)
        self.network.train(was_training)
        height, width = self.input_size_hw
        points = output.keypoints.double().cpu().numpy() * np.array([width, height])
        scores, sigmas = (part.double().cpu().numpy() for part in (output.scores, output.sigmas))
        return CropPoses(points, scores, sigmas)


@dataclass(frozen=True)
class ExportedEstimator:
    """An exported student, run by onnxruntime, under the same flip test as in torch."""

    student: StudentFile
    flip_test: bool = True

    @property
    def input_size_hw(self) -> SizeHW:
        return self.student.description.network.input_size_hw

    def estimate(self, crops: NDArray[np.uint8]) -> CropPoses:
        flip_indices = self.student.description.network.flip_indices
        return _regress(self._forward, crops, flip_indices if self.flip_test else None)

    def _forward(self, crops: NDArray[np.uint8]) -> CropPoses:
        found = self.student.predict(crops)
        return CropPoses(*(part.astype(np.float64) for part in found))


def _regress(
    forward: Callable[[NDArray[np.uint8]], CropPoses],
    crops: NDArray[np.uint8],
    flip_indices: tuple[int, ...] | None,
) -> CropPoses:
    """Predict crops, averaged with the predictions of the mirrored crops; None: without those."""
    poses = forward(crops)
    if flip_indices is None:
        return poses
    twin = forward(np.ascontiguousarray(crops[:, :, ::-1]))
    swap = list(flip_indices)
    keypoints = twin.keypoints[:, swap]
    keypoints[..., 0] = crops.shape[2] - 1 - keypoints[..., 0]
    assert poses.sigmas is not None
    assert twin.sigmas is not None
    return CropPoses(
        (poses.keypoints + keypoints) / 2,
        (poses.scores + twin.scores[:, swap]) / 2,
        (poses.sigmas + twin.sigmas[:, swap]) / 2,
    )


def predict_people(
    estimator: PoseEstimator,
    people: People,
    image_folder: Path,
    *,
    padding: float = PADDING,
    batch_size: int = 64,
    on_progress: Callable[[int], None] = lambda _: None,
) -> PosePredictions:
    """Predict the pose of every person, in their order; only their boxes and images are used.

    on_progress: called with the number of poses of every batch.

    Raises:
        ImageError: an image cannot be decoded whole.
    """
    size_hw = estimator.input_size_hw
    image_to_crop = box_to_crop(people.bbox_xywh, size_hw, padding)
    num_poses, num_keypoints = people.num_instances, people.skeleton.num_keypoints
    keypoints = np.empty((num_poses, num_keypoints, 2))
    scores = np.empty((num_poses, num_keypoints))
    requests = requests_by_image(people, image_folder, people.image_index, image_to_crop)
    for rows, _, crops in batched_crops(stream_crops(requests, size_hw), batch_size):
        poses = estimator.estimate(crops)
        keypoints[rows] = apply(invert(image_to_crop[rows]), poses.keypoints)
        scores[rows] = poses.scores
        on_progress(len(rows))
    is_annotated = people.box_score is None
    return PosePredictions(
        image_id=people.image_id[people.image_index],
        annotation_id=people.instance_id if is_annotated else np.full(num_poses, NO_ANNOTATION),
        keypoints=keypoints,
        keypoint_scores=scores,
        box_score=np.ones(num_poses) if people.box_score is None else people.box_score,
        crop_area=padded_box_size(people.bbox_xywh, size_hw, padding).prod(axis=-1),
    )
