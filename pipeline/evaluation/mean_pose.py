"""The baseline that sees no image: the training people's mean pose placed into every box.

A network that has not left the plateau of the mean pose scores what this does.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.poses import PosePredictions
from pipeline.errors import PeopleError
from pipeline.wording import counted


def mean_pose_in_box(
    train: People, aspect: float = 3 / 4, padding: float = 1.25
) -> NDArray[np.float64]:
    """Average the labelled keypoints of all people, each relative to the own padded box.

    aspect: width / height of the padded box.
    Returns: (K, 2) float64 as (x, y) from the box's centre, in widths and heights of the padded
    box, so inside it within +-0.5; (0, 0) for a keypoint that is never labelled.
    """
    centre, size = _padded_boxes(train.bbox_xywh, aspect, padding)
    relative = (train.keypoints[..., :2] - centre[:, np.newaxis]) / size[:, np.newaxis]
    is_labelled = train.is_labelled[..., np.newaxis]
    total = np.where(is_labelled, relative, 0.0).sum(axis=0)
    return np.asarray(total / np.maximum(is_labelled.sum(axis=0), 1))


def mean_pose_predictions(
    mean_pose: NDArray[np.float64], people: People, aspect: float = 3 / 4, padding: float = 1.25
) -> PosePredictions:
    """Place the mean pose into the padded box of every person; all scores are 1.

    mean_pose: (K, 2) float64 from ``mean_pose_in_box`` with the same aspect and padding.
    """
    num_keypoints = people.skeleton.num_keypoints
    if mean_pose.shape != (num_keypoints, 2):
        raise PeopleError(
            f"the mean pose has {counted(len(mean_pose), 'keypoint')} and the people have "
            f"{num_keypoints}; expected the same; use training people with the keypoints of the "
            "evaluated people"
        )
    centre, size = _padded_boxes(people.bbox_xywh, aspect, padding)
    return PosePredictions(
        image_id=people.image_id[people.image_index],
        annotation_id=people.instance_id,
        keypoints=centre[:, np.newaxis] + mean_pose * size[:, np.newaxis],
        keypoint_scores=np.ones((people.num_instances, num_keypoints)),
        box_score=np.ones(people.num_instances),
        crop_area=size.prod(axis=1),
    )


def _padded_boxes(
    bbox_xywh: NDArray[np.float64], aspect: float, padding: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centres and (width, height), each (N, 2) float64, image pixels."""
    centre = bbox_xywh[:, :2] + bbox_xywh[:, 2:] / 2
    width = np.maximum(bbox_xywh[:, 2], bbox_xywh[:, 3] * aspect)
    return centre, np.stack([width, width / aspect], axis=1) * padding
