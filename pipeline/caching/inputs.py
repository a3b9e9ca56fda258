"""What stage one, its plan and its benchmark take: people, images, a teacher, and how to ask it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.caching.settings import TeacherInputs
from pipeline.coco.people import People
from pipeline.coco.read_people import read_people
from pipeline.frames.views import describe_missing_halves
from pipeline.settings import TeacherSettings
from pipeline.teachers import Teacher
from pipeline.teachers.opening import open_fitting_teacher
from pipeline.wording import counted
from store_schemas.choices import TOKEN_KINDS
from store_schemas.optional_arrays import OptionalArrays, TokenFormat, crop_format

Say = Callable[[str], None]


def open_inputs(
    config: TeacherInputs,
    say: Say = lambda _: None,
    execution_recipe: Mapping[str, Any] | None = None,
) -> tuple[People, Teacher]:
    """Read the people and open the teacher, and refuse a pair that does not fit.

    execution_recipe: of the store that is gone on with; says what is not given.

    Raises:
        PeopleError: annotations or images contradict themselves.
        TeacherError: the teacher cannot be loaded, or does not fit the people.
    """
    people = read_people(config.annotations, config.images, config.people)
    say(
        f"people: {people.num_instances} with "
        f"{counted(people.skeleton.num_keypoints, 'keypoint')} in "
        f"{len(np.unique(people.image_index))} of {counted(len(people.image_id), 'image')}, "
        f"{counted(len(people.ignored.annotation_id), 'annotation')} kept as ignore regions"
    )
    if note := describe_missing_halves(people.skeleton, config.recipe):
        say(note)
    settings = _with_threads(config.teacher_settings, execution_recipe or {})
    teacher = open_fitting_teacher(config.teacher, people, settings)
    height, width = teacher.input_size_hw
    rows, columns = teacher.heatmap_size_hw
    say(
        f"teacher: {teacher.network.architecture} (sha256 {teacher.network.sha256[:12]}), crops of "
        f"{height}x{width}, heatmaps of {rows}x{columns}, frame {teacher.frame}, "
        f"{'flips averaged' if teacher.settings.flip_test else 'no flip test'}"
    )
    return people, teacher


def _with_threads(
    settings: TeacherSettings, execution_recipe: Mapping[str, Any]
) -> TeacherSettings:
    """Return settings that say how many threads a forward pass has, which moves last bits.

    One, if nobody says: it depends on no machine, and a batch for every core is faster than all
    cores for every batch.
    """
    if settings.num_threads is not None:
        return settings
    recorded = execution_recipe.get("num_threads")
    is_number = type(recorded) is int and recorded >= 1  # if not, the recipes are seen to differ
    return settings.model_copy(update={"num_threads": recorded if is_number else 1})


def optional_arrays(config: TeacherInputs, teacher: Teacher) -> OptionalArrays:
    """Return what a store keeps beside heatmaps.

    Raises:
        TeacherError: tokens are asked for of a teacher that has none.
    """
    crops = tokens = None
    if config.crops:
        crops = crop_format(teacher.input_size_hw, config.crop_quality, config.crop_subsampling)
    if config.tokens is not None:
        kinds = TOKEN_KINDS if config.tokens == "both" else (config.tokens,)
        tokens = TokenFormat(kinds, *teacher.require_tokens())
    return OptionalArrays(crops, tokens)
