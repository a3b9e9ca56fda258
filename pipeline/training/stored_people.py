"""People of a teacher store, the source of every training from one; subclasses know the views."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.errors import ConfigError
from pipeline.frames.geometry import SizeHW
from pipeline.models.token_encoder import TokenShape
from pipeline.teacher_store.averaging import AnyTeachers
from pipeline.training.batch import TrainingBatch, unchanged
from pipeline.training.data import StartMethod, TrainingDataset
from pipeline.training.images import TrainingImages
from pipeline.training.settings import StoreViewSettings, TeacherField
from pipeline.training.sources import StoreDigests
from pipeline.training.view_order import BlockOrder, ViewOrder


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
    @abstractmethod
    def padding(self) -> float:
        """Padding of the plain evaluation crop."""

    @property
    def token_shape(self) -> TokenShape | None:
        """Width and grid of the stored tokens; None: the store holds none."""
        tokens = self.store.optional.tokens
        return None if tokens is None else TokenShape(tokens.dim, tokens.grid_hw)

    @abstractmethod
    def heatmap_size_hw(self, input_size_hw: SizeHW) -> SizeHW:
        """Return the size of the heatmaps in the batches of a student."""

    @abstractmethod
    def dataset(
        self, input_size_hw: SizeHW, token_shape: TokenShape | None = None
    ) -> TrainingDataset:
        """Return a data set of the views at a student's input size.

        token_shape: that of the student's tokens, or of a projector behind them.

        Raises:
            ConfigError: the student does not fit the views, or its tokens not the teacher's.
        """

    def with_targets(self, input_size_hw: SizeHW) -> Callable[[TrainingBatch], TrainingBatch]:
        """Return what completes a loaded batch in the training's process: nothing is missing."""
        return unchanged

    def notes(self) -> tuple[str, ...]:
        """Return notes for the user before the training starts."""
        return ()

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


def require_same_aspect(store: AnyTeachers, input_size_hw: SizeHW) -> None:
    """Refuse a student whose input has another aspect than a store's views.

    Raises:
        ConfigError: it has.
    """
    stored_hw = store.input_size_hw
    if input_size_hw[0] * stored_hw[1] != input_size_hw[1] * stored_hw[0]:
        raise ConfigError(
            f"the aspect of the student's input, {_size(input_size_hw)} (height x width), must be "
            f"that of the stored views, but {store.path} holds crops of {_size(stored_hw)}; choose "
            "another architecture, set data.view_policy to carry, or write a store of that aspect"
        )


def _size(size_hw: SizeHW) -> str:
    return f"{size_hw[0]} x {size_hw[1]}"
