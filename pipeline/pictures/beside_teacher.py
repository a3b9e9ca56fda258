"""A student's pose and simulated heatmaps of a person, drawn beside the truth and a teacher's."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.coco.people import People, Skeleton
from pipeline.coco.skeletons import oks_sigmas
from pipeline.frames.geometry import Affine, SizeHW, apply, compose, invert
from pipeline.pictures.contact_sheet import label_tile
from pipeline.pictures.poses import (
    Picture,
    draw_pose,
    keypoint_colours,
    overlay_heatmaps,
    ring_keypoints,
)
from pipeline.prediction.estimators import StudentEstimator
from pipeline.prediction.pose_scores import keypoint_similarities
from pipeline.training.heatmap_losses import render_gaussians


@dataclass(frozen=True)
class Heat:
    """Heatmaps of one person."""

    heatmaps: NDArray[np.floating]  # (K, Hh, Wh) in [0, 1]
    image_to_heatmap: Affine  # (2, 3)
    label: str


class SimulatedHeat(NamedTuple):
    """The Gaussians that a student learned to lay over a teacher's heatmaps."""

    heatmaps: NDArray[np.float32]  # (B, K, Hh, Wh) in [0, 1]
    sigmas: NDArray[np.float64]  # (B,), median of the widths, heatmap cells


@dataclass(frozen=True)
class DrawnPose:
    """The pose of one person, by a student or a teacher."""

    keypoints: NDArray[np.float64]  # (K, 2) as (x, y), image pixels
    oks: float  # in [0, 1]; NaN: no keypoint is labelled, or the skeleton has no fall-offs
    heat: Heat | None = None  # None: not drawn

    @property
    def label(self) -> str:
        return "OKS not defined" if np.isnan(self.oks) else f"OKS {self.oks:.2f}"


def pose_oks(
    people: People, rows: NDArray[np.int64], keypoints: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the OKS of a pose of each of these people: (n,), NaN where it is not defined.

    rows: (n,), rows of ``people``.
    keypoints: (n, K, 2) as (x, y), image pixels.
    """
    if not people.skeleton.sigmas:
        return np.full(len(rows), np.nan)
    truth = people.keypoints[rows, :, :2].astype(np.float64)
    similarities = keypoint_similarities(
        keypoints, truth, people.area[rows], oks_sigmas(people.skeleton)
    )
    labelled = people.is_labelled[rows]
    total = np.where(labelled, similarities, 0.0).sum(axis=1)
    count = labelled.sum(axis=1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


@torch.inference_mode()
def simulated_heat(
    student: StudentEstimator,
    crops: NDArray[np.uint8],
    crop_to_heatmap: Affine,
    heatmap_size_hw: SizeHW,
    sigma_floor: float,
) -> SimulatedHeat:
    """Render a student's Gaussians on the cells of a teacher's heatmaps.

    crops: (B, H, W, 3) uint8, RGB, of the student's input size.
    crop_to_heatmap: (2, 3), pixels of the student's crop to cells of the teacher's heatmaps.
    sigma_floor: of the student's loss, see ``LossConfig``.
    """
    output = student.network.eval()(
        student.pixels.normalise(torch.from_numpy(crops).to(student.device))
    )
    height, width = student.input_size_hw
    points = output.keypoints.double().cpu().numpy() * np.array([width, height])
    cells = torch.from_numpy(apply(crop_to_heatmap, points))
    sigmas = output.sigmas.double().cpu()
    widths = (sigmas.square() + sigma_floor**2).sqrt().flatten(1)
    return SimulatedHeat(
        render_gaussians(cells, sigmas, heatmap_size_hw, sigma_floor).float().numpy(),
        widths.quantile(0.5, dim=1).numpy(),
    )


def draw_in_rings(
    tile: Picture,
    image_to_tile: Affine,
    truth: NDArray[np.float32],
    keypoints: NDArray[np.float64],
    skeleton: Skeleton,
) -> Picture:
    """Draw a pose over rings of the truth.

    truth: (K, 3) as (x, y, visibility), image pixels.
    keypoints: (K, 2) as (x, y), image pixels.
    """
    places, is_labelled = apply(image_to_tile, truth[:, :2]), truth[:, 2] > 0
    drawn = ring_keypoints(tile, places, is_labelled, skeleton)
    points = apply(image_to_tile, keypoints)
    return draw_pose(drawn, points, np.ones(len(points), bool), skeleton)


def tiles_beside_teacher(
    tile: Picture,
    image_to_tile: Affine,
    truth: NDArray[np.float32],
    skeleton: Skeleton,
    student: DrawnPose,
    teacher: DrawnPose | None,
) -> list[Picture]:
    """Draw the tiles of one person: the truth, the poses, then the heat of those that have it.

    tile: (h, w, 3) uint8, RGB, the person.
    image_to_tile: (2, 3).
    truth: (K, 3) as (x, y, visibility), image pixels.
    """
    places, is_labelled = apply(image_to_tile, truth[:, :2]), truth[:, 2] > 0
    tiles = [draw_pose(tile, places, is_labelled, skeleton)]
    poses = [pose for pose in (student, teacher) if pose is not None]
    for pose in poses:
        drawn = draw_in_rings(tile, image_to_tile, truth, pose.keypoints, skeleton)
        tiles.append(label_tile(drawn, pose.label))
    for heat in (pose.heat for pose in poses):
        if heat is not None:
            tile_to_heatmap = compose(heat.image_to_heatmap, invert(image_to_tile))
            colours = keypoint_colours(skeleton)
            drawn = overlay_heatmaps(tile, heat.heatmaps, tile_to_heatmap, colours)
            tiles.append(label_tile(drawn, heat.label))
    return tiles
