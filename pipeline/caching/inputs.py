"""Inputs of stage one, its estimate and its benchmark: people, images, a teacher and views."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.caching.settings import CacheSettings, TeacherInputs
from pipeline.coco.image_files import resolve_image, sha256_file
from pipeline.coco.people import People
from pipeline.coco.read_everyone import describe_people, read_everyone
from pipeline.frames.views import describe_missing_halves, draw_views
from pipeline.settings import TeacherSettings
from pipeline.storage.folder import StoreFolder
from pipeline.teacher_store.people_comparison import compare_people
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teacher_store.writer import compare_views, read_shared_plan
from pipeline.teachers import Teacher
from pipeline.teachers.opening import open_fitting_teacher, recorded_device
from pipeline.wording import Log, counted
from store_schemas.choices import TOKEN_KINDS
from store_schemas.formats import OptionalArrays, TokenFormat, crop_format, crop_margin_hw
from store_schemas.root_metadata import read_entries

SettingsT = TypeVar("SettingsT", bound=CacheSettings)


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
    people, notes = read_everyone(config.annotations, config.images, config.people)
    log(
        f"people: {describe_people(people)} with "
        f"{counted(people.skeleton.num_keypoints, 'keypoint')} in "
        f"{len(np.unique(people.image_index))} of {counted(len(people.image_id), 'image')}, "
        f"{counted(len(people.ignored.annotation_id), 'annotation')} kept as ignore regions"
    )
    for note in notes:
        log(note)
    if missing := describe_missing_halves(people.skeleton, config.recipe):
        log(missing)
    settings = _as_begun(config.teacher_settings, execution_recipe or {})
    teacher = open_fitting_teacher(config.teacher, people, settings)
    height, width = teacher.input_size_hw
    rows, columns = teacher.heatmap_size_hw
    log(
        f"teacher: {teacher.network.architecture} (sha256 {teacher.network.sha256[:12]}), crops of "
        f"{height}x{width}, heatmaps of {rows}x{columns}, frame {teacher.frame}, "
        f"{'flips averaged' if teacher.settings.flip_test else 'no flip test'}"
    )
    for note in teacher.notes:
        log(note)
    return people, teacher


def _as_begun(settings: TeacherSettings, execution_recipe: Mapping[str, Any]) -> TeacherSettings:
    """Return settings with device and threads of a forward pass, which change last bits.

    They are those that the store was begun with, unless they are given. The default is one thread:
    it is the same on every machine, and a batch for every core is faster than all cores for every
    batch.
    """
    if settings.device == "auto":
        settings = settings.model_copy(update={"device": recorded_device(execution_recipe)})
    if settings.num_threads is not None:
        return settings
    recorded = execution_recipe.get("num_threads")
    is_number = type(recorded) is int and recorded >= 1  # if not, comparing the recipes refuses it
    return settings.model_copy(update={"num_threads": recorded if is_number else 1})


def optional_arrays(config: TeacherInputs, teacher: Teacher) -> OptionalArrays:
    """Return the arrays that a store has beside heatmaps.

    Raises:
        TeacherError: tokens are to be stored of a teacher that has none.
        SchemaError: the margin makes the crops too large.
    """
    crops = tokens = None
    if config.crops:
        size_hw = teacher.input_size_hw
        margin_hw = crop_margin_hw(size_hw, config.stored_crop_margin)
        crops = crop_format(size_hw, config.crop_quality, config.crop_subsampling, margin_hw)
    if config.tokens is not None:
        kinds = TOKEN_KINDS if config.tokens == "both" else (config.tokens,)
        tokens = TokenFormat(kinds, *teacher.require_tokens(), dtype=config.token_format)
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


def with_views_of(config: SettingsT, folder: StoreFolder) -> SettingsT:
    """Return settings with a store's number of views and seed, where they are not given.

    Raises:
        StoreError: there is no store, or its views are damaged.
    """
    shared, _ = read_shared_plan(folder)
    stored = {"views": shared.views.num_views - 1, "seed": shared.views.seed}
    not_given = stored.keys() - config.model_fields_set
    return config.model_copy(update={name: stored[name] for name in not_given})


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
    compare_views(shared.views, view_identity(config, teacher))
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
