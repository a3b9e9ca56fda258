"""Networks -> poses in image pixels: crops are cut, looked at in batches and mapped back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.coco.people import People
from pipeline.coco.poses import PosePredictions
from pipeline.frames.crop_stream import batched_crops, requests_by_image, stream_crops
from pipeline.frames.geometry import apply, box_to_crop, invert, padded_box_size
from pipeline.prediction.boxes import PersonBoxes
from pipeline.prediction.estimators import PoseEstimator
from pipeline.settings import PADDING


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
    for rows, _, crops in batched_crops(stream_crops(requests, size_hw), batch_size):
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
