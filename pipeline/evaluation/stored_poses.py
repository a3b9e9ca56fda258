"""The poses that a teacher store holds for the plain evaluation crop, view 0, in image pixels."""

from collections.abc import Callable

import numpy as np

from pipeline.coco.poses import PosePredictions
from pipeline.frames.geometry import apply, invert
from pipeline.prediction.networks import Facts, teacher_facts
from pipeline.teacher_store.reader import TeacherStore
from pipeline.wording import counted
from store_schemas.teacher_store import Status

EVALUATION_VIEW = 0


def read_stored_poses(
    store: TeacherStore,
    batch_size: int = 64,
    on_progress: Callable[[int], None] = lambda _: None,
) -> PosePredictions:
    """Read the poses of view 0, mapped back by the stored affine; the peak heat is the score.

    People whose view 0 has no output have no pose: see ``describe_missing``.
    on_progress: called with the number of poses of every batch.

    Raises:
        CorruptError: a stored view is missing, torn or altered.
    """
    people = store.people
    rows = np.flatnonzero(store.status[:, EVALUATION_VIEW] == Status.OK)
    keypoints = np.empty((len(rows), people.skeleton.num_keypoints, 2))
    scores = np.empty(keypoints.shape[:2])
    for start in range(0, len(rows), batch_size):
        batch = slice(start, start + batch_size)
        stored = store.read(rows[batch], np.full(len(rows[batch]), EVALUATION_VIEW))
        keypoints[batch] = apply(invert(stored.image_to_crop), stored.keypoints)
        scores[batch] = stored.confidence
        on_progress(len(rows[batch]))
    height, width = store.input_size_hw
    linear = store.views.image_to_crop[rows, EVALUATION_VIEW, :, :2]
    return PosePredictions(
        image_id=people.image_id[people.image_index[rows]],
        annotation_id=people.instance_id[rows],
        keypoints=keypoints,
        keypoint_scores=scores,
        box_score=np.ones(len(rows)),
        crop_area=height * width / np.abs(np.linalg.det(linear)),
    )


def describe_missing(store: TeacherStore) -> str | None:
    """Count the people without an output for view 0, by reason; None if all have one."""
    status = store.status[:, EVALUATION_VIEW]
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
