"""The people that poses are compared with, and the boxes that the poses are predicted in."""

from dataclasses import replace
from pathlib import Path

from pipeline.coco.people import People
from pipeline.coco.result_files import read_detections
from pipeline.coco.skeletons import oks_sigmas
from pipeline.errors import PeopleError
from pipeline.prediction.networks import Facts
from pipeline.prediction.pose_scores import MAX_POSES, NMS_OKS
from pipeline.teacher_store.reader import TeacherStore


def with_sigmas(people: People, sigmas: tuple[float, ...]) -> People:
    """Return the people with these OKS fall-offs.

    Raises:
        ConfigError: they are not one per keypoint.
    """
    people = replace(people, skeleton=replace(people.skeleton, sigmas=sigmas))
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
    """Refuse an annotation file that lacks a person of the store.

    source: the annotation file, for the message.

    Raises:
        PeopleError: names the first person that it lacks.
    """
    image_of_person = dict(
        zip(people.instance_id.tolist(), people.image_id[people.image_index].tolist(), strict=True)
    )
    stored_images = store.people.image_id[store.people.image_index].tolist()
    for person, image in zip(store.people.instance_id.tolist(), stored_images, strict=True):
        if image_of_person.get(person) != image:
            raise PeopleError(
                f"the store has the person {person} in image {image}, {source} has not; give the "
                "annotations that the store was made from, or none: the store holds its own people"
            )
