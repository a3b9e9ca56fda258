"""Networks -> poses in image pixels: crops are cut, looked at in batches and mapped back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.result_files import Detections
from pipeline.evaluation.pose_scores import NO_ANNOTATION, PosePredictions
from pipeline.frames.crop_stream import ImageCrops, requests_by_image, stream_crops
from pipeline.frames.geometry import PADDING, SizeHW, apply, box_to_crop, invert, padded_box_size
from pipeline.models.pose_networks import RegressionStudent
from pipeline.teachers.teacher import IMAGENET_MEAN, IMAGENET_STD, Teacher


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
        output = self.teacher.observe(crops, self.flip_indices)
        return CropPoses(output.keypoints, output.confidences.astype(np.float64))


@dataclass(frozen=True)
class StudentEstimator:
    """A regression student; the flip test averages aligned points and swapped scores."""

    network: RegressionStudent
    flip_indices: tuple[int, ...]
    flip_test: bool = True
    device: str = "cpu"
    rgb_mean: tuple[float, float, float] = IMAGENET_MEAN
    rgb_std: tuple[float, float, float] = IMAGENET_STD

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
        pixels = torch.from_numpy(crops).to(self.device)
        mean, std = (
            torch.tensor(values, device=self.device) for values in (self.rgb_mean, self.rgb_std)
        )
        images = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)  # (B, 3, H, W)
        was_training = self.network.training
        self.network.eval()
        output = self.network(images)
        self.network.train(was_training)
        height, width = self.input_size_hw
        points = output.keypoints.double().cpu().numpy() * np.array([width, height])
        return CropPoses(points, output.scores.double().cpu().numpy())


@dataclass(frozen=True)
class PersonBoxes:
    """Where to look: ground-truth boxes of instances, or a detector's."""

    image_index: NDArray[np.int64]  # (P,)
    bbox_xywh: NDArray[np.float64]  # (P, 4), image pixels
    annotation_id: NDArray[np.int64]  # (P,), -1 for a detector's
    score: NDArray[np.float64]  # (P,), 1 for ground truth

    @classmethod
    def of_people(cls, people: People) -> "PersonBoxes":
        return cls(
            people.image_index,
            people.bbox_xywh,
            people.instance_id,
            np.ones(people.num_instances),
        )

    @classmethod
    def of_detections(cls, detections: Detections) -> "PersonBoxes":
        unknown = np.full(len(detections.image_index), NO_ANNOTATION)
        return cls(detections.image_index, detections.bbox_xywh, unknown, detections.score)


def predict_people(
    estimator: PoseEstimator,
    people: People,
    image_folder: Path,
    boxes: PersonBoxes | None = None,
    *,
    padding: float = PADDING,
    batch_size: int = 64,
    on_progress: Callable[[int], None] = lambda _: None,
) -> PosePredictions:
    """Estimate the pose in every box, in the order of the boxes.

    boxes: by default the instances' own.
    on_progress: told how many poses were added.

    Raises:
        ImageError: an image cannot be decoded whole.
    """
    boxes = PersonBoxes.of_people(people) if boxes is None else boxes
    size_hw = estimator.input_size_hw
    image_to_crop = box_to_crop(boxes.bbox_xywh, size_hw, padding)
    num_poses, num_keypoints = len(boxes.image_index), people.skeleton.num_keypoints
    keypoints = np.empty((num_poses, num_keypoints, 2))
    scores = np.empty((num_poses, num_keypoints))
    requests = requests_by_image(people, image_folder, boxes.image_index, image_to_crop)
    for rows, crops in _batches(stream_crops(requests, size_hw), batch_size):
        poses = estimator.estimate(crops)
        keypoints[rows] = apply(invert(image_to_crop[rows]), poses.keypoints)
        scores[rows] = poses.scores
        on_progress(len(rows))
    return PosePredictions(
        image_id=people.image_id[boxes.image_index],
        annotation_id=boxes.annotation_id,
        keypoints=keypoints,
        keypoint_scores=scores,
        box_score=boxes.score,
        crop_area=padded_box_size(boxes.bbox_xywh, size_hw, padding).prod(axis=-1),
    )


def _batches(
    images: Iterator[ImageCrops], batch_size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Yield (rows (B,), crops (B, H, W, 3)) of ``batch_size``, across images; the last is short."""
    rows: list[int] = []
    crops: list[NDArray[np.uint8]] = []
    for image in images:
        if image.crops is None:
            raise image.error or AssertionError("crops are missing without an error")
        rows += image.request.rows.tolist()
        crops += list(image.crops)
        while len(rows) >= batch_size:
            yield np.array(rows[:batch_size]), np.stack(crops[:batch_size])
            del rows[:batch_size], crops[:batch_size]
    if rows:
        yield np.array(rows), np.stack(crops)
