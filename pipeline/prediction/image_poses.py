"""Poses of the people in images that are in memory: a photograph, or a frame of a video."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.coco.boxes import Boxes
from pipeline.coco.poses import NO_ANNOTATION, PosePredictions
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import apply, box_to_crop, invert, padded_box_size
from pipeline.prediction.networks import OpenedNetwork
from pipeline.prediction.pose_scores import instance_scores, oks_nms

WHOLE_IMAGE_PADDING = 1.0
"""Padding of the box around a whole image: there is nothing outside of it to see."""


@dataclass(frozen=True)
class ImagePoses:
    """Poses in one image, a row for each person (P rows)."""

    bbox_xywh: NDArray[np.float64]  # (P, 4), image pixels
    box_scores: NDArray[np.float64]  # (P,)
    keypoints: NDArray[np.float64]  # (P, K, 2) as (x, y), image pixels
    keypoint_scores: NDArray[np.float64]  # (P, K)
    scores: NDArray[np.float64]  # (P,), by the network's score rule, times the box's score
    sigmas: NDArray[np.float64] | None  # (P, K, 2) as (x, y), cells of the teacher's heatmaps

    @property
    def num_people(self) -> int:
        return len(self.scores)

    def select(self, rows: NDArray[np.int64]) -> Self:
        """Return these rows in this order."""
        columns = ((field.name, getattr(self, field.name)) for field in fields(self))
        selected = {name: values[rows] for name, values in columns if values is not None}
        return replace(self, **selected)


def predict_image(
    network: OpenedNetwork,
    image: NDArray[np.uint8],
    bbox_xywh: ArrayLike | None = None,
    *,
    padding: float | None = None,
) -> ImagePoses:
    """Predict the pose in each box of an image.

    image: (H, W, 3) uint8, RGB.
    bbox_xywh: (P, 4), image pixels; None: one person, who fills the image.
    padding: factor by which boxes are enlarged; None: that of the network's training.

    Raises:
        PeopleError: a box is empty, or a pose is not finite.
    """
    if bbox_xywh is None:
        size_hw = image.shape[0], image.shape[1]
        padding = WHOLE_IMAGE_PADDING if padding is None else padding
        return predict_images(network, [image], [Boxes.whole_image(size_hw)], padding=padding)[0]
    return predict_images(network, [image], [Boxes.of(bbox_xywh)], padding=padding)[0]


def predict_images(
    network: OpenedNetwork,
    images: Sequence[NDArray[np.uint8]],
    boxes: Sequence[Boxes],
    *,
    padding: float | None = None,
    batch_size: int = 64,
    drop_duplicates: bool = False,
) -> list[ImagePoses]:
    """Predict the pose in each box of several images, in batches over all of them.

    images: each (H, W, 3) uint8, RGB. boxes: those of each image.
    drop_duplicates: of poses that are nearly the same person's keep the best (OKS above 0.9), as
        for a detector's boxes; then the best comes first. Needs the skeleton's sigmas.

    Raises:
        PeopleError: a pose is not finite.
    """
    size_hw = network.estimator.input_size_hw
    padding = network.padding if padding is None else padding
    counts = [len(each.scores) for each in boxes]
    image_index = np.repeat(np.arange(len(images)), counts)
    bbox_xywh = np.concatenate([np.zeros((0, 4)), *(each.bbox_xywh for each in boxes)])
    box_score = np.concatenate([np.zeros(0), *(each.scores for each in boxes)])
    image_to_crop = box_to_crop(bbox_xywh, size_hw, padding)
    num_keypoints = network.skeleton.num_keypoints
    keypoints = np.empty((len(bbox_xywh), num_keypoints, 2))
    keypoint_scores = np.empty((len(bbox_xywh), num_keypoints))
    sigmas: list[NDArray[np.float64]] = []
    for start in range(0, len(bbox_xywh), batch_size):
        rows = np.arange(start, min(start + batch_size, len(bbox_xywh)))
        pairs = zip(image_index[rows].tolist(), image_to_crop[rows], strict=True)
        crops = np.stack([warp_crop(images[image], affine, size_hw) for image, affine in pairs])
        poses = network.estimator.estimate(crops)
        keypoints[rows] = apply(invert(image_to_crop[rows]), poses.keypoints)
        keypoint_scores[rows] = poses.scores
        if poses.sigmas is not None:
            sigmas.append(poses.sigmas)
    columns = PosePredictions(
        image_id=image_index,
        annotation_id=np.full(len(bbox_xywh), NO_ANNOTATION),
        keypoints=keypoints,
        keypoint_scores=keypoint_scores,
        box_score=box_score,
        crop_area=padded_box_size(bbox_xywh, size_hw, padding).prod(axis=-1),
    )
    scores = instance_scores(columns, network.rule)
    everyone = ImagePoses(
        bbox_xywh,
        box_score,
        keypoints,
        keypoint_scores,
        scores,
        np.concatenate(sigmas) if sigmas else None,
    )
    kept = np.arange(len(scores))
    if drop_duplicates and network.skeleton.sigmas:
        kept = oks_nms(columns, scores, np.array(network.skeleton.sigmas), max_poses=None)
    return [
        everyone.select(kept[image_index[kept] == index].astype(np.int64))
        for index in range(len(images))
    ]
