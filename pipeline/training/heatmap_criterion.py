"""Loss of heatmap networks: the distance to Gaussians around keypoints, or to stored heatmaps."""

import torch
from torch import Tensor

from pipeline.frames.geometry import Affine, SizeHW
from pipeline.models.heads import HeatmapOutput
from pipeline.training.batch import TrainingBatch
from pipeline.training.heatmap_losses import heatmap_loss, render_gaussians
from pipeline.training.losses import Criterion, LossTerms, at_least_float32, require_heatmaps


class StoredHeatmapCriterion(Criterion):
    """Mean squared error against the heatmaps of another teacher, of the network's own size.

    All keypoints are learned, labelled or not, in the cells where the heat is known.
    """

    def __init__(self, num_keypoints: int) -> None:
        super().__init__()
        self._num_keypoints = num_keypoints

    @property
    def scored_keypoints(self) -> tuple[int, ...]:
        return tuple(range(self._num_keypoints))

    def forward(self, output: HeatmapOutput, batch: TrainingBatch, step: int) -> LossTerms:
        """Return the loss of a batch."""
        teacher, heatmaps = require_heatmaps(batch)
        maps = at_least_float32(output.heatmaps)
        heat = heatmaps.to(maps)
        if teacher.scale is not None:
            heat = heat * teacher.scale[..., None, None].to(heat)
        everything = torch.ones_like(batch.keypoint_weights)
        loss = heatmap_loss(maps, heat, everything, teacher.is_known)
        return LossTerms(loss, {"heatmap": loss.detach()})


class HeatmapCriterion(Criterion):
    """Mean squared error against unbiased Gaussians around the ground truth.

    crop_to_heatmap: (2, 3), crop pixels to the teacher's heatmap frame.
    sigma: standard deviation of the Gaussians, in heatmap cells.
    """

    crop_to_heatmap: Tensor

    def __init__(
        self, crop_to_heatmap: Affine, heatmap_size_hw: SizeHW, sigma: float, num_keypoints: int
    ) -> None:
        super().__init__()
        affine = torch.from_numpy(crop_to_heatmap).float()
        self.register_buffer("crop_to_heatmap", affine, persistent=False)
        self._heatmap_size_hw = heatmap_size_hw
        self._sigma = sigma
        self._num_keypoints = num_keypoints

    @property
    def scored_keypoints(self) -> tuple[int, ...]:
        return tuple(range(self._num_keypoints))

    def forward(self, output: HeatmapOutput, batch: TrainingBatch, step: int) -> LossTerms:
        """Return the loss of a batch."""
        points = batch.keypoints @ self.crop_to_heatmap[:, :2].T + self.crop_to_heatmap[:, 2]
        sigmas = torch.full_like(points, self._sigma)
        targets = render_gaussians(points, sigmas, self._heatmap_size_hw)
        maps = at_least_float32(output.heatmaps)
        loss = heatmap_loss(maps, targets, batch.keypoint_weights)
        return LossTerms(loss, {"heatmap": loss.detach()})
