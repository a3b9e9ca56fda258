"""People -> poses in image pixels: crops are cut, predicted in batches and mapped back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.coco.people import People
from pipeline.coco.poses import NO_ANNOTATION, PosePredictions
from pipeline.frames.crop_stream import batched_crops, requests_by_image, stream_crops
from pipeline.frames.geometry import apply, box_to_crop, invert, padded_box_size
from pipeline.prediction.estimators import PoseEstimator
from pipeline.settings import PADDING


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
