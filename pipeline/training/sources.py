"""Where training people and their views come from: a teacher store, or an annotation file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.coco.image_files import resolve_image
from pipeline.coco.people import People
from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.config import ComponentConfig
from pipeline.errors import ConfigError, PeopleError
from pipeline.frames.geometry import (
    Affine,
    HeatmapFrame,
    SizeHW,
    compose,
    crop_to_heatmap,
    resize_affine,
)
from pipeline.frames.views import ViewRecipe
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.data import FreshViewDataset, StoreViewDataset
from pipeline.training.images import TrainingImages


class DataConfig(ComponentConfig):
    """Which views a training shows."""

    num_views: int | None = Field(None, ge=1)
    """With a store: only its first augmented views; None: all of them."""
    recipe: ViewRecipe = ViewRecipe()
    """Without a store: how each epoch's views are drawn."""
    image_cache_mib: int = Field(512, ge=0)
    """Decoded images that each loader worker keeps."""


@dataclass(frozen=True)
class FreshViews:
    """People of an annotation file, each epoch under views of its own."""

    people: People
    image_folder: Path
    data: DataConfig
    seed: int

    @property
    def instances(self) -> NDArray[np.int64]:
        """(n,), rows of the people that can be trained on."""
        return np.arange(self.people.num_instances)

    @property
    def num_views(self) -> None:
        """None: no epoch shows a view again."""
        return None

    @property
    def padding(self) -> float:
        """Padding of the plain evaluation crop."""
        return self.data.recipe.padding

    def dataset(self, input_size_hw: SizeHW) -> FreshViewDataset:
        """Return views that are drawn when they are asked for."""
        cache_bytes = self.data.image_cache_mib << 20
        images = TrainingImages(self.people, self.image_folder, cache_bytes=cache_bytes)
        return FreshViewDataset(self.people, images, self.data.recipe, self.seed, input_size_hw)


def read_fresh_views(
    annotations: Path, image_folder: Path, settings: PeopleSettings, data: DataConfig, seed: int
) -> FreshViews:
    """Read the people of an annotation file and check the headers of their images.

    Raises:
        PeopleError: annotations or image headers are at fault, or nobody is left.
    """
    return FreshViews(read_people(annotations, image_folder, settings), image_folder, data, seed)


@dataclass(frozen=True)
class ReplayedViews:
    """People of a teacher store, under its augmented views."""

    store: TeacherStore
    image_folder: Path
    data: DataConfig
    reads_heatmaps: bool
    instances: NDArray[np.int64]
    """(n,), rows of the people that can be trained on."""
    num_views: int
    """Views of a person that epochs take turns at."""
    heatmap_frame: HeatmapFrame
    padding: float

    @property
    def people(self) -> People:
        return self.store.people

    def dataset(self, input_size_hw: SizeHW) -> StoreViewDataset:
        """Return the stored views, resized to a student's input.

        Raises:
            ConfigError: the student's input has another aspect than the stored views.
        """
        stored_hw = self.store.input_size_hw
        if input_size_hw[0] * stored_hw[1] != input_size_hw[1] * stored_hw[0]:
            raise ConfigError(
                f"the views of {self.store.path} are crops of {_size(stored_hw)} (height x width), "
                f"the student takes {_size(input_size_hw)}; choose a student, or write a store, of "
                "the same aspect"
            )
        cache_bytes = self.data.image_cache_mib << 20
        images = TrainingImages(
            self.people, self.image_folder, self.store.image_sha256, cache_bytes
        )
        return StoreViewDataset(self.store, images, input_size_hw, self.reads_heatmaps)

    def crop_to_heatmap(self, input_size_hw: SizeHW) -> Affine:
        """Return (2, 3), from a student's crop to the heatmaps in their teacher's frame."""
        stored_hw = self.store.input_size_hw
        teacher = crop_to_heatmap(self.heatmap_frame, stored_hw, self.store.heatmap_size_hw)
        return compose(teacher, resize_affine(input_size_hw, stored_hw))


def open_replayed_views(
    path: Path, image_folder: Path, data: DataConfig, *, reads_heatmaps: bool
) -> ReplayedViews:
    """Open a teacher store to train from, and refuse it if it cannot serve ``data``.

    reads_heatmaps: whether the teacher's heatmaps are used, or the views alone.

    Raises:
        StoreError: the store is incomplete, altered or of another schema.
        ConfigError: more views are asked for than there are.
        PeopleError: an image is missing.
    """
    store = TeacherStore.open(path)
    num_stored = store.num_views - 1
    num_views = num_stored if data.num_views is None else data.num_views
    if num_views > num_stored or num_stored == 0:
        raise ConfigError(
            f"data.num_views is {data.num_views}, but {path} holds {num_stored} augmented views of "
            "each person; ask for fewer, or write a store with more --views"
        )
    instances = store.present_instances()
    if not len(instances):
        raise PeopleError(f"{path} holds no person all of whose views were written")
    for index in np.unique(store.people.image_index[instances]).tolist():
        image = resolve_image(image_folder, store.people.image_name[index])
        if not image.is_file():
            raise PeopleError(
                f"the image {str(image)!r} of {path} is missing; give the folder of the images "
                "that the store was written from"
            )
    return ReplayedViews(
        store=store,
        image_folder=image_folder,
        data=data,
        reads_heatmaps=reads_heatmaps,
        instances=instances,
        num_views=num_views,
        heatmap_frame=store.identity["teacher"]["heatmap_frame"],
        padding=ViewRecipe.model_validate(store.views.recipe).padding,
    )


def _size(size_hw: SizeHW) -> str:
    return f"{size_hw[0]} x {size_hw[1]}"
