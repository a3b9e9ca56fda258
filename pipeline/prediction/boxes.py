"""Where a network looks for people: in annotated boxes, one pose each, or in a detector's.

A detector finds people more than once, so that of its poses only the best of a person are kept.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.poses import NO_ANNOTATION, PosePredictions
from pipeline.coco.result_files import Detections, read_detections
from pipeline.coco.skeletons import oks_sigmas
from pipeline.errors import PeopleError
from pipeline.prediction.networks import Facts
from pipeline.prediction.pose_scores import oks_nms

NMS_OKS = 0.9
MAX_POSES = 20


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


def boxes_to_look_at(
    people: People, detections_file: Path | None, *, clip_boxes: bool
) -> tuple[PersonBoxes, Facts, tuple[str, ...]]:
    """Return where to look, what evaluation.json says of it, and notes for the reader.

    detections_file: a detector's boxes; None: those of the people.
    clip_boxes: whether those of the people were cut off at the image.

    Raises:
        PeopleError: the detections contradict the people, or none is of their category.
    """
    if detections_file is None:
        facts: Facts = {"boxes": "ground truth", "clip_boxes": clip_boxes}
        return PersonBoxes.of_people(people), facts, ()
    detections = read_detections(detections_file, people)
    others = detections.num_other_categories
    if not len(detections.score):
        raise PeopleError(
            f"{detections_file} holds no box of category {people.category_id}, that of the "
            f"annotations ({others} of others); give a detector's boxes"
        )
    facts = {
        "boxes": "detections",
        "detections": str(detections_file),
        "nms_oks": NMS_OKS,
        "nms_max_poses_per_image": MAX_POSES,
    }
    note = f"detections of another category than the annotations are left out: {others}"
    return PersonBoxes.of_detections(detections), facts, (note,) if others else ()


def without_duplicates(
    predictions: PosePredictions, scores: NDArray[np.float64], people: People
) -> tuple[PosePredictions, NDArray[np.float64]]:
    """Keep the best of similar poses, and of those the best of every image.

    scores: (P,) float64, the instance scores.

    Raises:
        ConfigError: the people's skeleton has no OKS fall-offs.
    """
    sigmas = oks_sigmas(people.skeleton)
    kept = oks_nms(predictions, scores, sigmas, threshold=NMS_OKS, max_per_image=MAX_POSES)
    return predictions.select(kept), scores[kept]
