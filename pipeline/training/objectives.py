"""What students and teachers minimise: from a batch as it was loaded to a loss, on the device."""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.frames.geometry import Affine, SizeHW, apply
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.settings import IMAGENET_MEAN, IMAGENET_STD
from pipeline.training.data import TrainingBatch
from pipeline.training.losses import LossTerms, TrainingTargets, heatmap_loss, student_loss
from pipeline.training.settings import LossConfig


def normalise_images(images: Tensor, device: torch.device) -> Tensor:
    """Move crops to the device as bytes and prepare them there.

    images: (B, H, W, 3) uint8, RGB.
    Returns (B, 3, H, W) in channels-last memory order, ImageNet's mean and deviation taken off.
    """
    pixels = images.to(device, non_blocking=True).float()
    deviation = 255 * torch.tensor(IMAGENET_STD, device=device)
    offset = torch.tensor(IMAGENET_MEAN, device=device) / torch.tensor(IMAGENET_STD, device=device)
    return (pixels / deviation).sub_(offset).permute(0, 3, 1, 2)


class StudentObjective:
    """The configured terms of DistilPose.

    crop_to_heatmap: (2, 3), the *student's* crop to the teacher's heatmap; unused without one.
    """

    def __init__(
        self,
        config: LossConfig,
        num_keypoints: int,
        input_size_hw: SizeHW,
        crop_to_heatmap: Affine,
        device: torch.device,
    ) -> None:
        self._config = config
        self._input_size_hw = input_size_hw
        self._crop_to_heatmap = torch.tensor(crop_to_heatmap, dtype=torch.float32, device=device)
        self._crop_size_wh = torch.tensor(input_size_hw[::-1], dtype=torch.float32, device=device)
        self._device = device
        self._is_scored = torch.zeros(num_keypoints, dtype=torch.bool)

    @property
    def scored_keypoints(self) -> tuple[int, ...]:
        return tuple(self._is_scored.nonzero()[:, 0].tolist())

    def __call__(self, network: nn.Module, batch: TrainingBatch, step: int) -> LossTerms:
        """Return the loss of a batch."""
        self._note_scored(batch.keypoint_weights)
        output = network(normalise_images(batch.images, self._device))
        targets = TrainingTargets(
            keypoints=self._on_device(batch.keypoints) / self._crop_size_wh,
            keypoint_weights=self._on_device(batch.keypoint_weights),
            crop_to_heatmap=self._crop_to_heatmap,
            input_size_hw=self._input_size_hw,
            heatmaps=None if batch.heatmaps is None else self._on_device(batch.heatmaps),
            scale=None if batch.scale is None else self._on_device(batch.scale),
        )
        return student_loss(output, targets, self._config, step)

    def _note_scored(self, keypoint_weights: Tensor) -> None:
        if self._config.confidence > 0:
            everywhere = self._config.distil_unlabelled_keypoints
            self._is_scored |= everywhere | (keypoint_weights > 0).any(dim=0)

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)


class TeacherObjective:
    """Mean squared error against unbiased Gaussians around the ground truth.

    crop_to_heatmap: (2, 3), this teacher's own frame.
    sigma: heatmap cells.
    """

    def __init__(
        self,
        crop_to_heatmap: Affine,
        heatmap_size_hw: SizeHW,
        sigma: float,
        num_keypoints: int,
        device: torch.device,
    ) -> None:
        self._crop_to_heatmap = crop_to_heatmap
        self._heatmap_size_hw = heatmap_size_hw
        self._sigma = sigma
        self._device = device
        self.scored_keypoints = tuple(range(num_keypoints))

    def __call__(self, network: nn.Module, batch: TrainingBatch, step: int) -> LossTerms:
        """Return the loss of a batch."""
        points = apply(self._crop_to_heatmap, batch.keypoints.numpy().astype(np.float64))
        targets = torch.from_numpy(encode_keypoints(points, self._heatmap_size_hw, self._sigma))
        heatmaps = network(normalise_images(batch.images, self._device))
        loss = heatmap_loss(
            heatmaps, targets.to(self._device), batch.keypoint_weights.to(self._device)
        )
        return LossTerms(loss, {"heatmap": loss.detach()})
