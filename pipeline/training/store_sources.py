"""Views of a teacher store's people as sources of a training, and the store that is opened for it.

New ones, into which what is stored is carried; the stored ones; and these with their mirror images.
Those that a live teacher predicts are in ``live_teacher.py``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import resolve_image
from pipeline.errors import ConfigError, PeopleError
from pipeline.frames.geometry import SizeHW, size_in_aspect
from pipeline.frames.views import describe_missing_halves
from pipeline.models.token_encoder import TokenShape
from pipeline.settings import DeviceName, ViewRecipe
from pipeline.teacher_store.averaging import AnyTeachers, open_teachers
from pipeline.training.live_teacher import LiveViews, open_teacher_of
from pipeline.training.settings import (
    CarriedViewSettings,
    LiveTeacherSettings,
    MirroredViewSettings,
    ReplayedViewSettings,
    StoreSettings,
    TeacherField,
)
from pipeline.training.sources import hide_labels, labelled_rows
from pipeline.training.store_data import (
    CarriedViewDataset,
    MirroredViewDataset,
    ReplayedViewDataset,
)
from pipeline.training.stored_people import StoredPeople, require_same_aspect
from pipeline.wording import counted

_TOKENS: frozenset[TeacherField] = frozenset({"keypoint_tokens", "visual_tokens"})


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

    data: ReplayedViewSettings | MirroredViewSettings

    @property
    def num_views(self) -> int:
        return self._num_stored

    @property
    def _num_stored(self) -> int:
        """Number of the stored views that are shown."""
        return self.data.num_views or self.store.num_views - 1

    @property
    def views_read(self) -> range:
        return range(1, 1 + self._num_stored)

    @property
    def padding(self) -> float:
        """Padding of the plain evaluation crop."""
        return ViewRecipe.model_validate(self.store.views.recipe).padding

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
        require_same_aspect(self.store, input_size_hw)
        return ReplayedViewDataset(
            self.store,
            self.people,
            self.images(),
            input_size_hw,
            self.reads,
            replace_among=self.replace_among,
        )


@dataclass(frozen=True)
class MirroredViews(ReplayedViews):
    """People of a teacher store, under its augmented views and their mirror images."""

    data: MirroredViewSettings

    @property
    def num_views(self) -> int:
        return 2 * self._num_stored

    def dataset(
        self, input_size_hw: SizeHW, token_shape: TokenShape | None = None
    ) -> MirroredViewDataset:
        """Return a data set of the stored views and their mirror images, as ``ReplayedViews``.

        Raises:
            ConfigError: as ``ReplayedViews``; or tokens are learned from, or the teacher's heatmaps
                were not averaged with those of the mirrored crop: neither can be mirrored.
        """
        if tokens := sorted(self.reads & _TOKENS):
            raise ConfigError(
                f"{' and '.join(tokens)} are those of the stored views and cannot be mirrored; set "
                "data.view_policy to replay, or the weights of these terms to 0"
            )
        require_same_aspect(self.store, input_size_hw)
        return MirroredViewDataset(
            self.store,
            self.people,
            self.images(),
            input_size_hw,
            self.reads,
            self._num_stored,
            require_flip_test(self.store),
            replace_among=self.replace_among,
        )


@overload
def open_store_views(
    path: str | Path,
    image_folder: Path | None,
    data: CarriedViewSettings,
    reads: frozenset[TeacherField],
    seed: int = 0,
    device: DeviceName = "auto",
) -> CarriedViews: ...
@overload
def open_store_views(
    path: str | Path,
    image_folder: Path | None,
    data: ReplayedViewSettings,
    reads: frozenset[TeacherField],
    seed: int = 0,
    device: DeviceName = "auto",
) -> ReplayedViews: ...
@overload
def open_store_views(
    path: str | Path,
    image_folder: Path | None,
    data: StoreSettings,
    reads: frozenset[TeacherField],
    seed: int = 0,
    device: DeviceName = "auto",
) -> StoredPeople: ...
def open_store_views(
    path: str | Path,
    image_folder: Path | None,
    data: StoreSettings,
    reads: frozenset[TeacherField],
    seed: int = 0,
    device: DeviceName = "auto",
) -> StoredPeople:
    """Open a teacher store to train from, and refuse it if it does not fit ``data``.

    image_folder: needed unless ``data.from_crops``, which then opens none.
    reads: fields of the teacher that the loss terms read; none: only people and views are used,
        and only people with labels.
    seed: seed of the views that are drawn.
    device: device of a live teacher.

    Raises:
        StoreError: the store is incomplete, altered or of another schema.
        ObjectStoreError: its object store does not answer, or refuses.
        ConfigError: ``data`` needs more views than the store has, or crops that it does not hold,
            or a teacher that was averaged with its mirror image, or one that is not there.
        TeacherError: the live teacher cannot be loaded.
        IdentityError: the live teacher is not the one that wrote the store.
        PeopleError: no person can be learned from, or the image folder or an image is missing.
    """
    data = data.with_order(str(path))
    store = open_teachers(path, data.teachers, data.store_cache)
    is_live = isinstance(data, LiveTeacherSettings)
    if "heatmaps" in reads and not (is_live or store.has_heatmaps):
        raise ConfigError(
            f"{path} must hold heatmaps, which loss terms read, but holds keypoints and "
            "confidences alone; learn from those by loss.teacher_regression and switch the others "
            "off, or write a store with another --profile than keypoints"
        )
    if not isinstance(data, CarriedViewSettings):
        _require_views(store, data)
    if isinstance(data, MirroredViewSettings):
        require_flip_test(store)
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
    match data:
        case CarriedViewSettings():
            return CarriedViews(store, people, data, image_folder, reads, instances, seed)
        case ReplayedViewSettings():
            return ReplayedViews(store, people, data, image_folder, reads, instances, seed)
        case MirroredViewSettings():
            return MirroredViews(store, people, data, image_folder, reads, instances, seed)
        case LiveTeacherSettings():
            teacher = open_teacher_of(store, data.teacher, device)
            return LiveViews(store, people, data, image_folder, reads, instances, seed, teacher)


def require_flip_test(store: AnyTeachers) -> int:
    """Return the whole cells that the flip test shifted by; refuse a store without a flip test.

    Raises:
        ConfigError: the heatmaps were not averaged with those of the mirrored crop.
    """
    if store.flip_shift is None:
        raise ConfigError(
            f"data.view_policy mirror needs heatmaps that are averaged with those of the mirrored "
            f"crop, but those of {store.teacher} in {store.path} are not; set it to replay or "
            "carry, or write a store with cache-teacher --flip-test"
        )
    return store.flip_shift


def _require_views(
    store: AnyTeachers, data: ReplayedViewSettings | MirroredViewSettings | LiveTeacherSettings
) -> None:
    num_stored, wanted = store.num_views - 1, data.num_views
    if num_stored == 0 and (wanted or not isinstance(data, LiveTeacherSettings)):
        raise ConfigError(
            f"data.view_policy {data.view_policy} needs augmented views, but {store.path} holds "
            "the plain crop of each person alone; set it to carry, or write a store with --views"
        )
    if wanted is not None and wanted > num_stored:
        raise ConfigError(
            f"data.num_views is {wanted}, but {store.path} holds "
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
