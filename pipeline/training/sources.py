"""Sources of training people and their views: annotations; teacher stores in store_sources.py."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.read_people import read_people
from pipeline.errors import PeopleError
from pipeline.frames.geometry import SizeHW, size_in_aspect
from pipeline.frames.views import describe_missing_halves
from pipeline.models.token_encoder import TokenShape
from pipeline.settings import PeopleSettings
from pipeline.training.batch import TrainingBatch, unchanged
from pipeline.training.data import FreshViewDataset, StartMethod
from pipeline.training.images import TrainingImages
from pipeline.training.settings import FreshViewSettings
from pipeline.training.view_order import ViewOrder
from pipeline.wording import counted

PUBLISHED_HEATMAP_HW = (64, 48)


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
    instances: NDArray[np.int64]
    """(n,), rows of the people that can be trained on."""

    @property
    def num_views(self) -> None:
        """None: every epoch draws new views."""
        return None

    @property
    def padding(self) -> float:
        """Padding of the plain evaluation crop."""
        return self.data.recipe.padding

    @property
    def token_shape(self) -> TokenShape | None:
        """Shape of stored tokens: there are none."""
        return None

    def heatmap_size_hw(self, input_size_hw: SizeHW) -> SizeHW:
        """Return the size of heatmaps that a loss may draw: as high as the published ones."""
        return size_in_aspect(PUBLISHED_HEATMAP_HW, input_size_hw)

    @property
    def start_method(self) -> StartMethod:
        """How worker processes may be started."""
        return "fork"

    def order(self, batch_size: int, seed: int) -> ViewOrder:
        """Return which views an epoch shows."""
        instance_ids = self.people.instance_id[self.instances]
        return ViewOrder(self.instances, instance_ids, self.num_views, batch_size, seed)

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

    def with_targets(self, input_size_hw: SizeHW) -> Callable[[TrainingBatch], TrainingBatch]:
        """Return what completes a loaded batch in the training's process: nothing is missing."""
        return unchanged

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
    people = hide_labels(read_people(annotations, image_folder, settings), data.label_share)
    instances = labelled_rows(people, np.arange(people.num_instances))
    return FreshViews(people, image_folder, data, seed, instances)


def hide_labels(people: People, share: float) -> People:
    """Return people of whom only a share keep their labels, always the same ones.

    Who they are follows from the ids alone, and a larger share includes a smaller one.
    """
    if share >= 1:
        return people
    digests = (hashlib.sha256(f"label {i}".encode()).digest() for i in people.instance_id.tolist())
    places = np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
    keypoints = people.keypoints.copy()
    keypoints[places >= share] = (np.nan, np.nan, 0)
    return replace(people, keypoints=keypoints)


def labelled_rows(people: People, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of the rows whose people have a labelled keypoint.

    Raises:
        PeopleError: none has.
    """
    labelled = rows[people.is_labelled[rows].any(axis=1)]
    if not len(labelled):
        raise PeopleError(
            f"none of the {counted(len(rows), 'person')} has a labelled keypoint to learn from; "
            "give labelled people, a larger data.label_share, or a teacher store with distillation"
        )
    return labelled
