"""The views that a teacher is shown: drawn for a new store, else those that the store has."""

from typing import Any

from pipeline.caching.inputs import CacheSettings, Say
from pipeline.coco.people import People
from pipeline.frames.views import draw_views
from pipeline.storage.folder import StoreFolder
from pipeline.teacher_store.beginning import compare_views, read_shared_plan
from pipeline.teacher_store.people_comparison import compare_people
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teachers import Teacher
from store_schemas.root_metadata import read_entries


def draw_view_plan(config: CacheSettings, people: People, teacher: Teacher) -> ViewPlan:
    """Draw the views of a new store."""
    drawn = draw_views(people, config.recipe, config.seed, config.views, teacher.input_size_hw)
    recipe = config.recipe.model_dump(mode="json")
    return ViewPlan(
        drawn.image_to_crop, drawn.is_mirrored, teacher.input_size_hw, config.seed, recipe
    )


def stored_view_plan(
    config: CacheSettings, folder: StoreFolder, people: People, teacher: Teacher, say: Say
) -> ViewPlan:
    """Return the views that a store's teachers share, for one that is about to join them.

    Redrawing them would need the same library's random stream.

    Raises:
        IdentityError: people or views are not the store's; names the field.
        StoreError: people or views are damaged.
    """
    shared, plan = read_shared_plan(folder)
    compare_people(plan.people, people)
    compare_views(shared.views, given_views(config, teacher))
    say(f"{folder} has the teachers {', '.join(read_entries(folder))}; {config.teacher_name} joins")
    return plan.views


def given_views(config: CacheSettings, teacher: Teacher) -> dict[str, Any]:
    """Return what is said of the views, as an identity's section ``views`` has it."""
    return {
        "num_views": config.views + 1,
        "input_size_hw": list(teacher.input_size_hw),
        "seed": config.seed,
        "recipe": config.recipe.model_dump(mode="json"),
    }
