"""Poses of a store's teacher of the people of a report, stored or predicted."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.frames.geometry import apply, invert
from pipeline.pictures.shown_people import teacher_title
from pipeline.pictures.teacher_answers import PLAIN_VIEW
from pipeline.prediction.estimators import TeacherEstimator, predict_people
from pipeline.repair.recomputation import source_path
from pipeline.settings import PADDING
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers.stored_teacher import open_stored_teacher
from store_schemas.teacher_store import Status


class TeacherPoses(NamedTuple):
    """What a teacher predicts of n people."""

    name: str
    keypoints: NDArray[np.float64]  # (n, K, 2) as (x, y), image pixels


def teacher_poses(
    store: TeacherStore, people: People, image_folder: Path, rows: NDArray[np.int64]
) -> TeacherPoses | None:
    """Return the poses of a store's teacher of these people.

    They are read where the store holds the plain view of all of them, and else predicted by the
    very teacher, where its file is still where it was. None: neither is so.

    rows: (n,), rows of ``people``.

    Raises:
        StoreError: a view is damaged, or the teacher's file holds another one.
        TeacherError: the teacher cannot be loaded.
    """
    name = teacher_title(store)
    stored = _rows_in(store, people, rows)
    if stored is not None:
        found = store.read_keypoints(stored, np.full(len(stored), PLAIN_VIEW))
        return TeacherPoses(name, apply(invert(found.image_to_crop), found.keypoints))
    path = source_path(store.provenance, "teacher", None)
    if path is None:
        return None
    teacher = open_stored_teacher(path, store.identity, store.execution_recipe)
    padding = store.views.recipe.get("padding", PADDING)
    estimator = TeacherEstimator(teacher, people.skeleton.flip_indices)
    found_poses = predict_people(estimator, people.select(rows), image_folder, padding=padding)
    return TeacherPoses(name, found_poses.keypoints)


def _rows_in(
    store: TeacherStore, people: People, rows: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Return the rows of these people in a store; None: it lacks one, or its plain view."""
    stored = store.people
    places = {
        (int(person), stored.image_name[image]): row
        for row, (person, image) in enumerate(
            zip(stored.instance_id, stored.image_index, strict=True)
        )
        if store.status[row, PLAIN_VIEW] == Status.OK
    }
    keys = [
        (int(people.instance_id[row]), people.image_name[people.image_index[row]]) for row in rows
    ]
    found = [places.get(key) for key in keys]
    return None if None in found else np.array(found, np.int64)
