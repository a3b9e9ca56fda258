"""Where training people and their views come from: a teacher store, or an annotation file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch.utils.data import Dataset

from pipeline.coco_people import PeopleSettings, read_people
from pipeline.config import ComponentConfig
from pipeline.errors import PeopleError
from pipeline.geometry import Affine, SizeHW
from pipeline.people import People
from pipeline.training_data import FreshViewDataset, TrainingBatch
from pipeline.training_images import TrainingImages
from pipeline.views import ViewRecipe


class DataConfig(ComponentConfig):
    """Which views a training shows."""

    num_views: int | None = Field(None, ge=1)
    """With a store: only its first augmented views; None: all of them."""
    recipe: ViewRecipe = ViewRecipe()
    """Without a store: how each epoch's views are drawn."""
    image_cache_mib: int = Field(512, ge=0)
    """Decoded images that each loader worker keeps."""


@dataclass(frozen=True)
class TrainingSource:
    """People, and a data set of their views."""

    people: People
    instances: NDArray[np.int64]  # (n,), rows that can be trained on
    dataset: Dataset[TrainingBatch]
    num_views: int | None
    """Views of a person that epochs take turns at; None: every epoch has its own."""
    padding: float
    """Of the plain evaluation crop."""
    crop_to_heatmap: Affine | None = None
    """(2, 3), the student's crop to the teacher's heatmap; None without a teacher."""
    store_fingerprint: str | None = None
    store_content: str | None = None


def open_annotations(
    annotations: Path,
    image_folder: Path,
    settings: PeopleSettings,
    data: DataConfig,
    seed: int,
    input_size_hw: SizeHW,
) -> TrainingSource:
    """Read people from an annotation file; every epoch draws its own views of them.

    Raises:
        PeopleError: annotations or image headers are at fault, or nobody is left.
    """
    people = read_people(annotations, image_folder, settings)
    if not people.num_instances:
        raise PeopleError(f"{annotations} holds no people with keypoints; nothing can be trained")
    images = TrainingImages(people, image_folder, cache_bytes=data.image_cache_mib << 20)
    return TrainingSource(
        people=people,
        instances=np.arange(people.num_instances),
        dataset=FreshViewDataset(people, images, data.recipe, seed, input_size_hw),
        num_views=None,
        padding=data.recipe.padding,
    )
