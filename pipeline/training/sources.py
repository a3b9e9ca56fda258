"""Where training people and their views come from: a teacher store, or an annotation file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

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
from pipeline.teacher_store.averaging import AnyTeachers, open_teachers
from pipeline.teacher_store.cached_folder import is_read_in_blocks
from pipeline.training.block_order import BlockOrder
from pipeline.training.data import FreshViewDataset, OnCorrupt, StartMethod, StoreViewDataset
from pipeline.training.images import TrainingImages
from pipeline.training.view_order import ViewOrder
from pipeline.wording import counted
from store_schemas.teacher_store import TEACHER_NAME


class DataConfig(ComponentConfig):
    """Which views a training shows."""

    teachers: tuple[Annotated[str, Field(pattern=TEACHER_NAME.pattern)], ...] = ()
    """With a store: the teacher to learn from, or several whose heat is averaged; none: the only
    one."""
    num_views: int | None = Field(None, ge=1)
    """With a store: only its first augmented views; None: all of them."""
    recipe: ViewRecipe = ViewRecipe()
    """Without a store: how each epoch's views are drawn."""
    image_cache_mib: int = Field(512, ge=0)
    """Decoded images that each loader worker keeps."""
    on_corrupt: OnCorrupt = "raise"
    """With a store: whether a view whose heatmaps are corrupt stops the training or is replaced by
    another view of the same person."""
    from_crops: bool = False
    """With a store that holds crops: learn from them, and open no image."""
    paranoid: bool = False
    """With a store: compare an image with its digest at every decode, not only when it is new."""
    store_cache: Path | None = None
    """With a store: a folder that its shards are copied to when they are first read."""
    view_order: Literal["shuffled", "blocks"] | None = None
    """blocks: whole shards one after the other, each read once while all its views are shown. None:
    blocks for a store in an object store that is not cached, else shuffled."""

    def with_order(self, store: str | None) -> Self:
        """Return these settings with the order that they imply for a store, None for no store."""
        if self.view_order is not None:
            return self
        in_blocks = is_read_in_blocks(store, self.store_cache)
        return self.model_copy(update={"view_order": "blocks" if in_blocks else "shuffled"})


def refuse_settings_of_a_store(data: DataConfig) -> None:
    """Refuse, where there is no teacher store, the settings that need one: ``ValueError``."""
    way_out = "give one, or leave it out"
    if data.paranoid:
        raise ValueError(
            f"data.paranoid is true, but only a teacher store says what the images were; {way_out}"
        )
    if data.from_crops:
        raise ValueError(
            f"data.from_crops is true, but only a teacher store holds crops; {way_out}"
        )
    if data.store_cache or data.teachers or data.view_order == "blocks":
        raise ValueError(
            "data.store_cache, data.teachers and data.view_order = blocks are for a teacher "
            "store; give one, or leave them out"
        )


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

    @property
    def start_method(self) -> StartMethod:
        """How worker processes may be started."""
        return "fork"

    def order(self, batch_size: int, seed: int) -> ViewOrder:
        """Return which views an epoch shows."""
        return ViewOrder(self.instances, self.people.instance_id, self.num_views, batch_size, seed)

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

    store: AnyTeachers
    image_folder: Path | None
    """None: its crops are learned from."""
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

    @property
    def start_method(self) -> StartMethod:
        """How worker processes that read the store may be started."""
        return "forkserver" if self.store.is_remote else "fork"

    def order(self, batch_size: int, seed: int) -> ViewOrder | BlockOrder:
        """Return which views an epoch shows."""
        if self.data.view_order == "blocks":
            return BlockOrder(
                self.instances, self.store.rows_per_shard, self.num_views, batch_size, seed
            )
        instance_ids = self.people.instance_id[self.instances]
        return ViewOrder(self.instances, instance_ids, self.num_views, batch_size, seed)

    def dataset(self, input_size_hw: SizeHW) -> StoreViewDataset:
        """Return the stored views, resized to a student's input.

        Raises:
            ConfigError: the student's input has another aspect than the stored views.
        """
        stored_hw = self.store.input_size_hw
        if input_size_hw[0] * stored_hw[1] != input_size_hw[1] * stored_hw[0]:
            raise ConfigError(
                f"the aspect of the student's input, {_size(input_size_hw)} (height x width), must "
                f"be that of the stored views, but {self.store.path} holds crops of "
                f"{_size(stored_hw)}; choose another architecture, or write a store of that aspect"
            )
        return StoreViewDataset(
            self.store, self._images(), input_size_hw, self.reads_heatmaps, self.data.on_corrupt
        )

    def _images(self) -> TrainingImages | None:
        if self.image_folder is None:
            return None
        return TrainingImages(
            self.people,
            self.image_folder,
            self.store.image_sha256,
            self.data.image_cache_mib << 20,
            paranoid=self.data.paranoid,
        )

    def crop_to_heatmap(self, input_size_hw: SizeHW) -> Affine:
        """Return (2, 3), from a student's crop to the heatmaps in their teacher's frame."""
        stored_hw = self.store.input_size_hw
        teacher = crop_to_heatmap(self.heatmap_frame, stored_hw, self.store.heatmap_size_hw)
        return compose(teacher, resize_affine(input_size_hw, stored_hw))


def open_replayed_views(
    path: str | Path, image_folder: Path | None, data: DataConfig, *, reads_heatmaps: bool
) -> ReplayedViews:
    """Open a teacher store to train from, and refuse it if it cannot serve ``data``.

    image_folder: needed unless ``data.from_crops``, which then opens none.
    reads_heatmaps: whether the teacher's heatmaps are used, or the views alone.

    Raises:
        StoreError: the store is incomplete, altered or of another schema.
        ObjectStoreError: its object store does not answer, or refuses.
        ConfigError: more views are asked for than there are, or crops that it does not hold.
        PeopleError: nobody can be trained on, or the image folder or an image is missing.
    """
    data = data.with_order(str(path))
    store = open_teachers(path, data.teachers, data.store_cache)
    num_stored = store.num_views - 1
    num_views = num_stored if data.num_views is None else data.num_views
    if num_views > num_stored or num_stored == 0:
        raise ConfigError(
            f"data.num_views is {data.num_views}, but {path} holds "
            f"{counted(num_stored, 'augmented view')} of each person; ask for fewer, or write a "
            "store with more --views"
        )
    instances = store.present_instances()
    if not len(instances):
        raise PeopleError(
            f"{path} must hold a person all of whose views were written, but holds none of its "
            f"{store.people.num_instances}; mend their images and write the store again"
        )
    if data.from_crops:
        image_folder = None
        _require_crops(store)
    elif image_folder is None:
        raise ConfigError("images must be given, unless data.from_crops is set")
    else:
        _check_images_are_there(store, image_folder, instances)
    return ReplayedViews(
        store=store,
        image_folder=image_folder,
        data=data,
        reads_heatmaps=reads_heatmaps,
        instances=instances,
        num_views=num_views,
        heatmap_frame=store.heatmap_frame,
        padding=ViewRecipe.model_validate(store.views.recipe).padding,
    )


def _require_crops(store: AnyTeachers) -> None:
    if store.optional.crops is None:
        raise ConfigError(
            f"{store.path} must hold crops to be trained from without images, but was written "
            "without; give --images in place of --from-crops, or write it with cache-teacher "
            "--crops"
        )


def _check_images_are_there(
    store: AnyTeachers, image_folder: Path, instances: NDArray[np.int64]
) -> None:
    used = np.unique(store.people.image_index[instances]).tolist()
    expected = f"{counted(len(used), 'image')} of {store.path}"
    way_out = "give the folder of the images that the store was written from"
    if not image_folder.is_dir():
        raise PeopleError(
            f"images must be the folder of the {expected}, but there is no folder {image_folder}; "
            f"{way_out}"
        )
    names = (store.people.image_name[index] for index in used)
    missing = [name for name in names if not resolve_image(image_folder, name).is_file()]
    if missing:
        raise PeopleError(
            f"images must be the folder of the {expected}, but {image_folder} lacks {len(missing)} "
            f"of them, the first one {missing[0]!r}; {way_out}"
        )


def _size(size_hw: SizeHW) -> str:
    return f"{size_hw[0]} x {size_hw[1]}"
