"""People that poses are compared with, boxes to predict in, and the poses of a teacher store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.coco.people import People
from pipeline.coco.poses import NO_ANNOTATION, PosePredictions
from pipeline.coco.result_files import read_detections
from pipeline.coco.skeletons import oks_sigmas
from pipeline.errors import PeopleError
from pipeline.frames.geometry import apply, invert
from pipeline.prediction.networks import Facts, teacher_facts
from pipeline.prediction.pose_scores import MAX_POSES, NMS_OKS
from pipeline.teacher_store.reader import TeacherStore
from pipeline.wording import counted
from store_schemas.teacher_store import Status

EVALUATION_VIEW = 0
"""The plain crop of a person."""


def with_sigmas(people: People, sigmas: tuple[float, ...]) -> People:
    """Return the people with these OKS fall-offs, of which there may be none at all.

    Raises:
        ConfigError: they are not one per keypoint.
    """
    people = replace(people, skeleton=replace(people.skeleton, sigmas=sigmas))
    if sigmas:
        oks_sigmas(people.skeleton)
    return people


def people_to_predict(
    people: People, detections: Path | None, *, clip_boxes: bool
) -> tuple[People, Facts, tuple[str, ...]]:
    """Return the people whose poses are predicted, facts for evaluation.json, and notes.

    detections: file with a detector's boxes on the same images; None: the boxes of ``people``.
    clip_boxes: whether the boxes of ``people`` were clipped to their images.

    Raises:
        PeopleError: the detections contradict the people, or none is of their category.
    """
    if detections is None:
        return people, {"boxes": "ground truth", "clip_boxes": clip_boxes}, ()
    detected, num_others = read_detections(detections, people)
    if not detected.num_instances:
        raise PeopleError(
            f"{detections} holds no box of category {people.category_id}, that of the annotations "
            f"({num_others} of others); give a detector's boxes"
        )
    facts: Facts = {
        "boxes": "detections",
        "detections": str(detections),
        "nms_oks": NMS_OKS,
        "nms_max_poses_per_image": MAX_POSES,
    }
    note = f"detections of another category than the annotations are left out: {num_others}"
    return detected, facts, (note,) if num_others else ()


def require_stored_people(store: TeacherStore, people: People, source: str) -> None:
    """Refuse an annotation file that lacks a labelled person of the store.

    source: the annotation file, for the message.

    Raises:
        PeopleError: names the first person that it lacks.
    """
    image_of_person = dict(
        zip(people.instance_id.tolist(), people.image_id[people.image_index].tolist(), strict=True)
    )
    stored = store.people.as_evaluated()
    stored_images = stored.image_id[stored.image_index].tolist()
    for person, image in zip(stored.instance_id.tolist(), stored_images, strict=True):
        if image_of_person.get(person) != image:
            raise PeopleError(
                f"the store has the person {person} in image {image}, {source} has not; give the "
                "annotations that the store was made from, or none: the store holds its own people"
            )


def read_stored_poses(
    store: TeacherStore,
    batch_size: int = 64,
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    only_labelled: bool = False,
) -> PosePredictions:
    """Read the poses of view 0, mapped back by the stored affine; the peak heat is the score.

    People whose view 0 has no output have no pose: see ``describe_missing``. Detected people have
    no annotation id.
    only_labelled: leave out people without labelled keypoints, as an evaluation does.
    on_progress: called with the number of poses of every batch.

    Raises:
        CorruptError: a stored view is missing, torn or altered.
    """
    people = store.people
    is_wanted = people.has_labels if only_labelled else np.ones(people.num_instances, np.bool_)
    rows = np.flatnonzero((store.status[:, EVALUATION_VIEW] == Status.OK) & is_wanted)
    keypoints = np.empty((len(rows), people.skeleton.num_keypoints, 2))
    scores = np.empty(keypoints.shape[:2])
    for start in range(0, len(rows), batch_size):
        batch = slice(start, start + batch_size)
        stored = store.read_keypoints(rows[batch], np.full(len(rows[batch]), EVALUATION_VIEW))
        keypoints[batch] = apply(invert(stored.image_to_crop), stored.keypoints)
        scores[batch] = stored.confidence
        on_progress(len(rows[batch]))
    height, width = store.input_size_hw
    linear = store.views.image_to_crop[rows, EVALUATION_VIEW, :, :2]
    return PosePredictions(
        image_id=people.image_id[people.image_index[rows]],
        annotation_id=np.where(people.is_detected, NO_ANNOTATION, people.instance_id)[rows],
        keypoints=keypoints,
        keypoint_scores=scores,
        box_score=np.ones(len(rows)),
        crop_area=height * width / np.abs(np.linalg.det(linear)),
    )


def describe_missing(store: TeacherStore, *, only_labelled: bool = False) -> str | None:
    """Count the people without an output for view 0, by reason; None if all have one.

    only_labelled: count people with labelled keypoints alone.
    """
    is_wanted = slice(None) if not only_labelled else store.people.has_labels
    status = store.status[is_wanted, EVALUATION_VIEW]
    reasons = [
        f"{(status == code).sum()} {code.words}"
        for code in Status
        if code is not Status.OK and (status == code).any()
    ]
    if not reasons:
        return None
    return (
        f"no stored pose of {(status != Status.OK).sum()} of {counted(len(status), 'person')} "
        f"({', '.join(reasons)}): they count as missed"
    )


def store_facts(store: TeacherStore) -> Facts:
    """Return the store and the settings that move the AP of its poses, for evaluation.json."""
    return {
        "source": "teacher store",
        "store": str(store.path),
        "store_fingerprint": store.fingerprint,
        "store_content": store.content_sha256,
        **teacher_facts(store.identity.teacher),
        "input_size": f"{store.input_size_hw[0]}x{store.input_size_hw[1]}",
        "padding": store.views.recipe.get("padding"),
    }
