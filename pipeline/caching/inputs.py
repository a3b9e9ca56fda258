"""Inputs of stage one, its estimate and its benchmark: people, images, a teacher and views."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.coco.image_files import resolve_image, sha256_file
from pipeline.coco.people import People
from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.config import StageConfig
from pipeline.frames.views import ViewRecipe, describe_missing_halves, draw_views
from pipeline.storage.folder import StoreFolder, StoreLocation
from pipeline.teacher_store.adding import compare_views, read_shared_plan
from pipeline.teacher_store.opening import read_entries
from pipeline.teacher_store.people_comparison import compare_people
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teachers import Teacher, TeacherSettings
from pipeline.teachers.opening import open_fitting_teacher
from pipeline.teachers.probe import PROBE_PEOPLE
from pipeline.wording import Log, counted
from store_schemas.optional_arrays import (
    MAX_QUALITY,
    TOKEN_KINDS,
    OptionalArrays,
    TokenFormat,
    crop_format,
)
from store_schemas.teacher_store import DEFAULT_TEACHER_NAME, TEACHER_NAME

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
    log: Log = lambda _: None,
    execution_recipe: Mapping[str, Any] | None = None,
) -> tuple[People, Teacher]:
    """Read the people and open the teacher, and refuse a pair that does not fit.

    execution_recipe: recipe of the store that is resumed; fills settings that are not given.

    Raises:
        PeopleError: annotations or images contradict themselves.
        TeacherError: the teacher cannot be loaded, or does not fit the people.
    """
    people = read_people(config.annotations, config.images, config.people)
    log(
        f"people: {people.num_instances} with "
        f"{counted(people.skeleton.num_keypoints, 'keypoint')} in "
        f"{len(np.unique(people.image_index))} of {counted(len(people.image_id), 'image')}, "
        f"{counted(len(people.ignored.annotation_id), 'annotation')} kept as ignore regions"
    )
    if note := describe_missing_halves(people.skeleton, config.recipe):
        log(note)
    settings = _with_threads(config.teacher_settings, execution_recipe or {})
    teacher = open_fitting_teacher(config.teacher, people, settings)
    height, width = teacher.input_size_hw
    rows, columns = teacher.heatmap_size_hw
    log(
        f"teacher: {teacher.network.architecture} (sha256 {teacher.network.sha256[:12]}), crops of "
        f"{height}x{width}, heatmaps of {rows}x{columns}, frame {teacher.frame}, "
        f"{'flips averaged' if teacher.settings.flip_test else 'no flip test'}"
    )
    return people, teacher


def _with_threads(
    settings: TeacherSettings, execution_recipe: Mapping[str, Any]
) -> TeacherSettings:
    """Return settings with the number of threads of a forward pass, which moves last bits.

    The default is one: it is the same on every machine, and a batch for every core is faster than
    all cores for every batch.
    """
    if settings.num_threads is not None:
        return settings
    recorded = execution_recipe.get("num_threads")
    is_number = type(recorded) is int and recorded >= 1  # if not, comparing the recipes refuses it
    return settings.model_copy(update={"num_threads": recorded if is_number else 1})


def optional_arrays(config: TeacherInputs, teacher: Teacher) -> OptionalArrays:
    """Return the arrays that a store has beside heatmaps.

    Raises:
        TeacherError: tokens are to be stored of a teacher that has none.
    """
    crops = tokens = None
    if config.crops:
        crops = crop_format(teacher.input_size_hw, config.crop_quality, config.crop_subsampling)
    if config.tokens is not None:
        network = teacher.token_network
        kinds = TOKEN_KINDS if config.tokens == "both" else (config.tokens,)
        tokens = TokenFormat(kinds, network.token_dim, network.token_grid_hw)
    return OptionalArrays(crops, tokens)


def digest_images(
    people: People, image_folder: Path, on_progress: Callable[[int], None] = lambda _: None
) -> NDArray[np.uint8]:
    """Return the sha256 (M, 32) uint8 of every image that has people; zeros for the others."""
    digests = np.zeros((len(people.image_id), 32), np.uint8)
    for image in np.unique(people.image_index).tolist():
        path = resolve_image(image_folder, people.image_name[image])
        digests[image] = np.frombuffer(bytes.fromhex(sha256_file(path)), np.uint8)
        on_progress(1)
    return digests


def draw_view_plan(config: TeacherInputs, people: People, teacher: Teacher) -> ViewPlan:
    """Draw the views of a new store."""
    drawn = draw_views(people, config.recipe, config.seed, config.views, teacher.input_size_hw)
    recipe = config.recipe.model_dump(mode="json")
    return ViewPlan(
        drawn.image_to_crop, drawn.is_mirrored, teacher.input_size_hw, config.seed, recipe
    )


def stored_view_plan(
    config: CacheSettings, folder: StoreFolder, people: People, teacher: Teacher, log: Log
) -> ViewPlan:
    """Return the views that a store's teachers share, for a teacher that is added to them.

    Redrawing them would need the same library's random stream.

    Raises:
        IdentityError: people or views are not the store's; names the field.
        StoreError: people or views are damaged.
    """
    shared, plan = read_shared_plan(folder)
    compare_people(plan.people, people)
    compare_views(shared["views"], view_identity(config, teacher))
    log(f"{folder} has the teachers {', '.join(read_entries(folder))}; {config.teacher_name} joins")
    return plan.views


def view_identity(config: TeacherInputs, teacher: Teacher) -> dict[str, Any]:
    """Return the section ``views`` of the identity of a store with these settings."""
    return {
        "num_views": config.views + 1,
        "input_size_hw": list(teacher.input_size_hw),
        "seed": config.seed,
        "recipe": config.recipe.model_dump(mode="json"),
    }
