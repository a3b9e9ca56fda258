"""What stage one, its plan and its benchmark take: people, images, a teacher, and how to ask it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pipeline.coco.people import People
from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.config import StageConfig
from pipeline.frames.views import ViewRecipe, describe_missing_halves
from pipeline.storage.folder import StoreLocation
from pipeline.teachers import Teacher, TeacherSettings
from pipeline.teachers.opening import open_fitting_teacher
from pipeline.teachers.probe import PROBE_PEOPLE
from pipeline.wording import counted
from store_schemas.optional_arrays import (
    MAX_QUALITY,
    TOKEN_KINDS,
    OptionalArrays,
    TokenFormat,
    crop_format,
)
from store_schemas.teacher_store import DEFAULT_TEACHER_NAME, TEACHER_NAME

Say = Callable[[str], None]
ProfileName = Literal["default", "small", "fast", "lossless-float16"]


class TeacherInputs(StageConfig):
    """People, a teacher, and the views in which it sees them."""

    annotations: Path
    images: Path
    teacher: Path
    profile: ProfileName = "default"
    """How heatmaps are stored."""
    crops: bool = False
    """Keep the crops too, as JPEG; the teacher then looks at what is left of them."""
    crop_quality: int = Field(90, ge=1, le=MAX_QUALITY)
    """Of JPEG."""
    crop_subsampling: Literal["4:2:0", "4:4:4"] = "4:2:0"
    """Of their colour."""
    tokens: Literal["keypoint", "visual", "both"] | None = None
    """Which tokens to keep, of a teacher that was trained here."""
    views: int = Field(8, ge=0)
    """Augmented views of every person, beside the evaluation crop."""
    seed: int = Field(0, ge=0)
    recipe: ViewRecipe = ViewRecipe()
    teacher_settings: TeacherSettings = TeacherSettings()
    people: PeopleSettings = PeopleSettings()

    @model_validator(mode="after")
    def _check_crops(self) -> Self:
        fields = type(self).model_fields
        asked = [
            f for f in ("crop_quality", "crop_subsampling") if getattr(self, f) != fields[f].default
        ]
        if asked and not self.crops:
            raise ValueError(
                "crop_quality and crop_subsampling are of crops, which are not kept; add crops, or "
                "leave them out"
            )
        return self


class CacheSettings(TeacherInputs):
    """All that a plan of a store depends on."""

    store: StoreLocation
    """Where it lies: the path of a folder, or a URL."""
    teacher_name: str = Field(DEFAULT_TEACHER_NAME, pattern=TEACHER_NAME.pattern)
    """Of the teacher's group in the store, which may hold several."""
    probe_people: int = Field(PROBE_PEOPLE, ge=1)
    accept_weak_teacher: bool = False


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
