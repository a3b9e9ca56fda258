"""Loss of heatmap networks: the distance to Gaussians around keypoints, or to stored heatmaps."""

import numpy as np
import torch

from pipeline.frames.geometry import Affine, SizeHW, apply
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.models.heads import HeatmapOutput
from pipeline.training.batch import TrainingBatch
from pipeline.training.heatmap_losses import heatmap_loss
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

    def __init__(
        self, crop_to_heatmap: Affine, heatmap_size_hw: SizeHW, sigma: float, num_keypoints: int
    ) -> None:
        super().__init__()
        self._crop_to_heatmap = crop_to_heatmap
        self._heatmap_size_hw = heatmap_size_hw
        self._sigma = sigma
        self._num_keypoints = num_keypoints

    @property
    def scored_keypoints(self) -> tuple[int, ...]:
        return tuple(range(self._num_keypoints))

    def forward(self, output: HeatmapOutput, batch: TrainingBatch, step: int) -> LossTerms:
        """Return the loss of a batch."""
        points = apply(self._crop_to_heatmap, batch.keypoints.cpu().numpy().astype(np.float64))
        targets = torch.from_numpy(encode_keypoints(points, self._heatmap_size_hw, self._sigma))
        maps = at_least_float32(output.heatmaps)
        loss = heatmap_loss(maps, targets.to(maps.device), batch.keypoint_weights)
        return LossTerms(loss, {"heatmap": loss.detach()})
