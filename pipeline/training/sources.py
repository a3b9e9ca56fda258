"""Sources of training people and their views: a teacher store, or an annotation file."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import resolve_image
from pipeline.coco.people import People
from pipeline.coco.read_people import read_people
from pipeline.errors import ConfigError, PeopleError
from pipeline.frames.geometry import SizeHW
from pipeline.frames.views import describe_missing_halves
from pipeline.models.token_encoder import TokenShape
from pipeline.settings import PeopleSettings, ViewRecipe
from pipeline.teacher_store.averaging import AnyTeachers, open_teachers
from pipeline.training.data import FreshViewDataset, StartMethod, StoreViewDataset
from pipeline.training.images import TrainingImages
from pipeline.training.settings import FreshViewSettings, ReplayedViewSettings, TeacherField
from pipeline.training.view_order import BlockOrder, ViewOrder
from pipeline.wording import counted


class StoreDigests(NamedTuple):
    """Digests of the store that a training learns from; None: it learns from no store."""

    fingerprint: str | None = None
    content_sha256: str | None = None

    def as_facts(self) -> dict[str, str | None]:
        """Return them as provenance.json names them."""
        return {"store_fingerprint": self.fingerprint, "store_content": self.content_sha256}


@dataclass(frozen=True)
class FreshViews:
    """People of an annotation file, under new random views in every epoch."""

    people: People
    image_folder: Path
    data: FreshViewSettings
    seed: int

    @property
    def instances(self) -> NDArray[np.int64]:
        """(n,), rows of the people that can be trained on."""
        return np.arange(self.people.num_instances)

    @property
    def num_views(self) -> None:
        """None: every epoch draws new views."""
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

    def notes(self) -> tuple[str, ...]:
        """Return notes for the user before the training starts."""
        note = describe_missing_halves(self.people.skeleton, self.data.recipe)
        return () if note is None else (note,)

    @property
    def provenance(self) -> StoreDigests:
        """Digests of the store that is learned from: none."""
        return StoreDigests()

    @property
    def ledger_facts(self) -> tuple[str, int]:
        """Name of the source, and number of its person-views that can be corrupt: none."""
        return str(self.image_folder), 0

    def dataset(
        self, input_size_hw: SizeHW, token_shape: TokenShape | None = None
    ) -> FreshViewDataset:
        """Return a data set of views, drawn when they are read, at a student's input size."""
        cache_bytes = self.data.image_cache_mib << 20
        images = TrainingImages(self.people, self.image_folder, cache_bytes=cache_bytes)
        return FreshViewDataset(self.people, images, self.data.recipe, self.seed, input_size_hw)


def read_fresh_views(
    annotations: Path,
    image_folder: Path,
    settings: PeopleSettings,
    data: FreshViewSettings,
    seed: int,
) -> FreshViews:
    """Read the people of an annotation file and check the headers of their images.

    Raises:
        PeopleError: annotations or image headers contradict themselves, or no person is left.
    """
    return FreshViews(read_people(annotations, image_folder, settings), image_folder, data, seed)


@dataclass(frozen=True)
class ReplayedViews:
    """People of a teacher store, under its augmented views."""

    store: AnyTeachers
    image_folder: Path | None
    """Folder of the images; None: the crops of the store are used."""
    data: ReplayedViewSettings
    reads: frozenset[TeacherField]
    """Fields of the teacher that the loss terms read."""
    instances: NDArray[np.int64]
    """(n,), rows of the people that can be trained on."""
    num_views: int
    """Number of augmented views of each person, which epochs show in turn."""
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

    def notes(self) -> tuple[str, ...]:
        """Return notes for the user before the training starts: none."""
        return ()

    @property
    def provenance(self) -> StoreDigests:
        """Digests of the store that is trained from."""
        return StoreDigests(self.store.fingerprint, self.store.content_sha256)

    @property
    def ledger_facts(self) -> tuple[str, int]:
        """Name of the source, and number of its person-views that can be corrupt."""
        return str(self.store.path), len(self.instances) * self.num_views

    def dataset(
        self, input_size_hw: SizeHW, token_shape: TokenShape | None = None
    ) -> StoreViewDataset:
        """Return a data set of the stored views, resized to a student's input size.

        Raises:
            ConfigError: the student's input has another aspect than the stored views, or its tokens
                another shape than the stored ones that are learned from.
        """
        for field in sorted(self.reads & {"keypoint_tokens", "visual_tokens"}):
            require_tokens(self.store, field.removesuffix("_tokens"), token_shape)
        stored_hw = self.store.input_size_hw
        if input_size_hw[0] * stored_hw[1] != input_size_hw[1] * stored_hw[0]:
            raise ConfigError(
                f"the aspect of the student's input, {_size(input_size_hw)} (height x width), must "
                f"be that of the stored views, but {self.store.path} holds crops of "
                f"{_size(stored_hw)}; choose another architecture, or write a store of that aspect"
            )
        return StoreViewDataset(
            self.store,
            self._images(),
            input_size_hw,
            self.reads,
            replace_among=self.num_views if self.data.on_corrupt == "skip" else None,
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


def open_replayed_views(
    path: str | Path,
    image_folder: Path | None,
    data: ReplayedViewSettings,
    reads: frozenset[TeacherField],
) -> ReplayedViews:
    """Open a teacher store to train from, and refuse it if it does not fit ``data``.

    image_folder: needed unless ``data.from_crops``, which then opens none.
    reads: fields of the teacher that the loss terms read; none: only the views are used.

    Raises:
        StoreError: the store is incomplete, altered or of another schema.
        ObjectStoreError: its object store does not answer, or refuses.
        ConfigError: ``data`` needs more views than the store has, or crops that it does not hold.
        PeopleError: no person has all views, or the image folder or an image is missing.
    """
    data = data.with_order(str(path))
    store = open_teachers(path, data.teachers, data.store_cache)
    num_stored = store.num_views - 1
    num_views = num_stored if data.num_views is None else data.num_views
    if num_views > num_stored or num_stored == 0:
        raise ConfigError(
            f"data.num_views is {data.num_views}, but {path} holds "
            f"{counted(num_stored, 'augmented view')} of each person; use fewer, or write a store "
            "with more --views"
        )
    instances = store.present_instances()
    if not len(instances):
        raise PeopleError(
            f"{path} must hold a person all of whose views were written, but holds none of its "
            f"{store.people.num_instances}; make their images readable and write the store again"
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
        reads=reads,
        instances=instances,
        num_views=num_views,
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
            f"{'no tokens' if shape is None else shape.dim}; choose a student of the teacher's size"
        )
    if kind == "visual" and tuple(tokens.grid_hw) != shape.grid_hw:
        raise ConfigError(
            f"the student must have {tokens.grid_hw[0]} x {tokens.grid_hw[1]} patches, as the "
            f"tokens of {store.path}, got {shape.grid_hw[0]} x {shape.grid_hw[1]}; choose a "
            "student of the teacher's size"
        )
