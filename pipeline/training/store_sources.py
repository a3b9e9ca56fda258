"""People of a teacher store as the source of a training, under new views or the stored ones."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import resolve_image
from pipeline.coco.people import People
from pipeline.errors import ConfigError, PeopleError
from pipeline.frames.geometry import SizeHW, size_in_aspect
from pipeline.frames.views import describe_missing_halves
from pipeline.models.token_encoder import TokenShape
from pipeline.settings import ViewRecipe
from pipeline.teacher_store.averaging import AnyTeachers, open_teachers
from pipeline.training.data import StartMethod
from pipeline.training.images import TrainingImages
from pipeline.training.settings import (
    CarriedViewSettings,
    ReplayedViewSettings,
    StoreViewSettings,
    TeacherField,
)
from pipeline.training.sources import StoreDigests, hide_labels, labelled_rows
from pipeline.training.store_data import CarriedViewDataset, ReplayedViewDataset
from pipeline.training.view_order import BlockOrder, ViewOrder
from pipeline.wording import counted

_TOKENS: frozenset[TeacherField] = frozenset({"keypoint_tokens", "visual_tokens"})


@dataclass(frozen=True)
class StoredPeople:
    """People of a teacher store; subclasses know under which views."""

    store: AnyTeachers
    people: People
    """Those of the store; some labels may be hidden."""
    data: StoreViewSettings
    image_folder: Path | None
    """Folder of the images; None: the crops of the store are used."""
    reads: frozenset[TeacherField]
    """Fields of the teacher that the loss terms read."""
    instances: NDArray[np.int64]
    """(n,), rows of the people that can be trained on."""
    seed: int
    """Seed of the views that are drawn."""

    @property
    @abstractmethod
    def num_views(self) -> int | None:
        """Number of views that epochs show in turn; None: every epoch draws new ones."""

    @property
    @abstractmethod
    def views_read(self) -> range:
        """Views of the store that are read."""

    @property
    def token_shape(self) -> TokenShape | None:
        """Width and grid of the stored tokens; None: the store holds none."""
        tokens = self.store.optional.tokens
        return None if tokens is None else TokenShape(tokens.dim, tokens.grid_hw)

    @abstractmethod
    def heatmap_size_hw(self, input_size_hw: SizeHW) -> SizeHW:
        """Return the size of the heatmaps in the batches of a student."""

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

    @property
    def provenance(self) -> StoreDigests:
        """Digests of the store that is trained from."""
        return StoreDigests(self.store.fingerprint, self.store.content_sha256)

    @property
    def ledger_facts(self) -> tuple[str, int]:
        """Name of the source, and number of its person-views that can be corrupt."""
        return str(self.store.path), len(self.instances) * len(self.views_read)

    @property
    def replace_among(self) -> range | None:
        """Views among which a corrupt one is replaced; None: it stops the training."""
        return self.views_read if self.data.on_corrupt == "skip" else None

    def images(self) -> TrainingImages | None:
        """Return the images that crops are cut from; None: the crops of the store are used."""
        if self.image_folder is None:
            return None
        return TrainingImages(
            self.people,
            self.image_folder,
            self.store.image_sha256,
            self.data.image_cache_mib << 20,
            paranoid=self.data.paranoid,
        )


@dataclass(frozen=True)
class CarriedViews(StoredPeople):
    """People of a teacher store under new views in every epoch, with carried predictions."""

    data: CarriedViewSettings

    @property
    def num_views(self) -> None:
        return None

    @property
    def views_read(self) -> range:
        """The plain view, and the others where it is replaced."""
        return range(self.store.num_views if self.data.on_corrupt == "skip" else 1)

    @property
    def padding(self) -> float:
        """Padding of the plain evaluation crop."""
        return self.data.recipe.padding

    def notes(self) -> tuple[str, ...]:
        """Return notes for the user before the training starts."""
        notes = []
        if note := describe_missing_halves(self.people.skeleton, self.data.recipe):
            notes.append(note)
        if self.image_folder is None and self.store.crop_margin_hw == (0, 0):
            notes.append(
                f"the crops of {self.store.path} have no margin, so that new views are black "
                "beyond them; give --images, or write the store with cache-teacher --crop-margin"
            )
        return tuple(notes)

    def heatmap_size_hw(self, input_size_hw: SizeHW) -> SizeHW:
        """Return the size of the carried heatmaps: as high as the store's, in the views' aspect."""
        return size_in_aspect(self.store.heatmap_size_hw, input_size_hw)

    def dataset(
        self,
        input_size_hw: SizeHW,
        token_shape: TokenShape | None = None,
        heatmap_size_hw: SizeHW | None = None,
    ) -> CarriedViewDataset:
        """Return a data set of new views at a network's input size.

        heatmap_size_hw: size of the carried heatmaps; None: about that of the store's.

        Raises:
            ConfigError: tokens are learned from, which cannot be carried.
        """
        if tokens := sorted(self.reads & _TOKENS):
            raise ConfigError(
                f"{' and '.join(tokens)} are those of the stored views and cannot be carried into "
                "new ones; set data.view_policy to replay, or the weights of these terms to 0"
            )
        return CarriedViewDataset(
            self.store,
            self.people,
            self.images(),
            self.data.recipe,
            self.seed,
            input_size_hw,
            self.reads,
            heatmap_size_hw,
            replace_among=self.replace_among,
        )


@dataclass(frozen=True)
class ReplayedViews(StoredPeople):
    """People of a teacher store, under its augmented views."""

    data: ReplayedViewSettings

    @property
    def num_views(self) -> int:
        return self.data.num_views or self.store.num_views - 1

    @property
    def views_read(self) -> range:
        return range(1, 1 + self.num_views)

    @property
    def padding(self) -> float:
        """Padding of the plain evaluation crop."""
        return ViewRecipe.model_validate(self.store.views.recipe).padding

    def notes(self) -> tuple[str, ...]:
        """Return notes for the user before the training starts: none."""
        return ()

    def heatmap_size_hw(self, input_size_hw: SizeHW) -> SizeHW:
        """Return the size of the stored heatmaps."""
        return self.store.heatmap_size_hw

    def dataset(
        self, input_size_hw: SizeHW, token_shape: TokenShape | None = None
    ) -> ReplayedViewDataset:
        """Return a data set of the stored views, resized to a student's input size.

        Raises:
            ConfigError: the student's input has another aspect than the stored views, or its tokens
                another shape than the stored ones that are learned from.
        """
        for field in sorted(self.reads & _TOKENS):
            require_tokens(self.store, field.removesuffix("_tokens"), token_shape)
        stored_hw = self.store.input_size_hw
        if input_size_hw[0] * stored_hw[1] != input_size_hw[1] * stored_hw[0]:
            raise ConfigError(
                f"the aspect of the student's input, {_size(input_size_hw)} (height x width), must "
                f"be that of the stored views, but {self.store.path} holds crops of "
                f"{_size(stored_hw)}; choose another architecture, set data.view_policy to carry, "
                "or write a store of that aspect"
            )
        return ReplayedViewDataset(
            self.store,
            self.people,
            self.images(),
            input_size_hw,
            self.reads,
            replace_among=self.replace_among,
        )


@overload
def open_store_views(
    path: str | Path,
    image_folder: Path | None,
    data: CarriedViewSettings,
    reads: frozenset[TeacherField],
    seed: int = 0,
) -> CarriedViews: ...
@overload
def open_store_views(
    path: str | Path,
    image_folder: Path | None,
    data: ReplayedViewSettings,
    reads: frozenset[TeacherField],
    seed: int = 0,
) -> ReplayedViews: ...
def open_store_views(
    path: str | Path,
    image_folder: Path | None,
    data: CarriedViewSettings | ReplayedViewSettings,
    reads: frozenset[TeacherField],
    seed: int = 0,
) -> CarriedViews | ReplayedViews:
    """Open a teacher store to train from, and refuse it if it does not fit ``data``.

    image_folder: needed unless ``data.from_crops``, which then opens none.
    reads: fields of the teacher that the loss terms read; none: only people and views are used,
        and only people with labels.
    seed: seed of the views that are drawn.

    Raises:
        StoreError: the store is incomplete, altered or of another schema.
        ObjectStoreError: its object store does not answer, or refuses.
        ConfigError: ``data`` needs more views than the store has, or crops that it does not hold.
        PeopleError: no person can be learned from, or the image folder or an image is missing.
    """
    data = data.with_order(str(path))
    store = open_teachers(path, data.teachers, data.store_cache)
    if "heatmaps" in reads and not store.has_heatmaps:
        raise ConfigError(
            f"{path} must hold heatmaps, which loss terms read, but holds keypoints and "
            "confidences alone; learn from those by loss.teacher_regression and switch the others "
            "off, or write a store with another --profile than keypoints"
        )
    if isinstance(data, ReplayedViewSettings):
        _require_views(store, data)
    instances = store.present_instances()
    if not len(instances):
        raise PeopleError(
            f"{path} must hold a person all of whose views were written, but holds none of its "
            f"{store.people.num_instances}; make their images readable and write the store again"
        )
    people = hide_labels(store.people, data.label_share)
    if not reads:
        instances = labelled_rows(people, instances)
    if data.from_crops:
        image_folder = None
        _require_crops(store)
    elif image_folder is None:
        raise ConfigError("images must be given, unless data.from_crops is set")
    else:
        _check_images_are_there(store, image_folder, instances)
    if isinstance(data, CarriedViewSettings):
        return CarriedViews(store, people, data, image_folder, reads, instances, seed)
    return ReplayedViews(store, people, data, image_folder, reads, instances, seed)


def _require_views(store: AnyTeachers, data: ReplayedViewSettings) -> None:
    num_stored = store.num_views - 1
    if num_stored == 0:
        raise ConfigError(
            f"data.view_policy replay needs augmented views, but {store.path} holds the plain crop "
            "of each person alone; set it to carry, or write a store with --views"
        )
    if data.num_views is not None and data.num_views > num_stored:
        raise ConfigError(
            f"data.num_views is {data.num_views}, but {store.path} holds "
            f"{counted(num_stored, 'augmented view')} of each person; use fewer, or write a store "
            "with more --views"
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


def require_tokens(store: AnyTeachers, kind: str, shape: TokenShape | None) -> None:
    """Refuse a store whose tokens differ from a student's in kind, dimension or grid.

    Args:
        kind: ``keypoint`` or ``visual``.
        shape: That of the student's tokens; the grid matters only for visual tokens.

    Raises:
        ConfigError: the store has no such tokens, or of another dimension or grid.
    """
    tokens = store.optional.tokens
    if tokens is None or kind not in tokens.kinds:
        held = "none" if tokens is None else f"only {', '.join(tokens.kinds)} tokens"
        raise ConfigError(
            f"{store.path} must hold {kind} tokens, got {held}; write a store with cache-teacher "
            f"--tokens {kind}"
        )
    if shape is None or tokens.dim != shape.dim:
        raise ConfigError(
            f"the student's tokens must have {tokens.dim} channels, as those of {store.path}, got "
            f"{'no tokens' if shape is None else shape.dim}; choose a student of the teacher's "
            "size, or set loss.token_projector"
        )
    if kind == "visual" and tuple(tokens.grid_hw) != shape.grid_hw:
        raise ConfigError(
            f"the student must have {tokens.grid_hw[0]} x {tokens.grid_hw[1]} patches, as the "
            f"tokens of {store.path}, got {shape.grid_hw[0]} x {shape.grid_hw[1]}; choose a "
            "student of the teacher's size, or set loss.token_projector"
        )
