"""Whom a study looks at, and in which views."""

import numpy as np
from numpy.typing import NDArray

from pipeline.benchmarks.fidelity import StudiedPeople
from pipeline.coco.people import People, people_of_rows
from pipeline.frames.views import draw_views
from pipeline.settings import ViewRecipe
from pipeline.teachers import Teacher


def study_people(
    people: People,
    rows: NDArray[np.int64],
    teacher: Teacher,
    recipe: ViewRecipe,
    seed: int = 0,
    num_views: int = 0,
) -> StudiedPeople:
    """Choose people and draw the views that the teacher is to be shown of them.

    rows: (P,), those who are chosen.
    num_views: augmented ones, beside the plain crop.
    """
    chosen = people_of_rows(people, rows)
    size_hw = teacher.input_size_hw
    views = draw_views(chosen, recipe, seed, num_views, size_hw).image_to_crop
    return StudiedPeople(chosen, views, teacher.crop_to_heatmap, size_hw, recipe.padding)
