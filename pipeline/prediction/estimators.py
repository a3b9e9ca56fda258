"""What finds the keypoints of a person in a crop: a student, or a teacher under its settings."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.frames.geometry import SizeHW
from pipeline.frames.pixels import PixelNormalisation
from pipeline.models.pose_networks import Student
from pipeline.teachers.teacher import Teacher


@dataclass(frozen=True)
class CropPoses:
    """Poses of a batch of crops."""

    keypoints: NDArray[np.float64]  # (B, K, 2) as (x, y), crop pixels
    scores: NDArray[np.float64]  # (B, K)


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
        poses = self._forward(crops)
        if not self.flip_test:
            return poses
        twin = self._forward(np.ascontiguousarray(crops[:, :, ::-1]))
        swap = list(self.flip_indices)
        keypoints = twin.keypoints[:, swap]
        keypoints[..., 0] = self.input_size_hw[1] - 1 - keypoints[..., 0]
        return CropPoses(
            (poses.keypoints + keypoints) / 2, (poses.scores + twin.scores[:, swap]) / 2
        )

    @torch.inference_mode()
    def _forward(self, crops: NDArray[np.uint8]) -> CropPoses:
        images = self.pixels.normalise(torch.from_numpy(crops).to(self.device))
        was_training = self.network.training
        self.network.eval()
        output = self.network(images)
        self.network.train(was_training)
        height, width = self.input_size_hw
        points = output.keypoints.double().cpu().numpy() * np.array([width, height])
        return CropPoses(points, output.scores.double().cpu().numpy())
