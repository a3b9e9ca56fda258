"""What a loader's batch costs from images and from stored crops, with targets and without."""

import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from pipeline.benchmarks.drawn_views import draw_batches
from pipeline.errors import ConfigError
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.data import StoreViewDataset
from pipeline.training.images import TrainingImages
from pipeline.training.view_order import ViewBatch

Source = Literal["images", "crops"]


@dataclass(frozen=True)
class CropLoading:
    """Processor seconds of one batch in one worker, medians over interleaved turns."""

    batch_size: int
    images: float
    """From images, without targets."""
    images_with_targets: float
    crops: float
    """From stored crops, without targets."""
    crops_with_targets: float

    @property
    def speed_up(self) -> float:
        """How many times faster a worker with targets is from crops than from images."""
        return self.images_with_targets / self.crops_with_targets

    @property
    def share_of_targets(self) -> float:
        """What targets add to a worker that decodes crops, in parts of its time without."""
        return self.crops_with_targets / self.crops - 1


def measure_crop_loading(
    path: Path, images: Path, num_batches: int = 8, batch_size: int = 32, num_turns: int = 4
) -> CropLoading:
    """Load the same batches in four ways, in turns; call it in a fresh process.

    Raises:
        ConfigError: the store has no crops.
        StoreError: the store cannot be read.
        ImageError: an image cannot be decoded, or is not the one the store was made from.
    """
    cv2.setNumThreads(0)
    store = TeacherStore.open(path)
    if store.optional.crops is None:
        raise ConfigError(f"{path} must hold crops; write a store with cache-teacher --crops")
    drawn = draw_batches(store, num_batches, batch_size)
    ways: list[tuple[Source, bool]] = list(product(("images", "crops"), (False, True)))
    files = TrainingImages(store.people, images, store.image_sha256)
    datasets = {
        (source, reads): StoreViewDataset(
            store,
            files if source == "images" else None,
            store.input_size_hw,
            frozenset({"heatmaps"} if reads else ()),
        )
        for source, reads in ways
    }
    spent: dict[tuple[Source, bool], list[float]] = {way: [] for way in ways}
    for turn in range(num_turns):
        for place, (rows, views) in enumerate(drawn.batches):
            first = (turn + place) % len(ways)
            for way in ways[first:] + ways[:first]:
                start = time.process_time()
                datasets[way][ViewBatch(rows, views)]
                if turn:  # the first reads images and store into the page cache
                    spent[way].append(time.process_time() - start)
    seconds = {way: float(np.median(found)) for way, found in spent.items()}
    return CropLoading(
        batch_size,
        seconds["images", False],
        seconds["images", True],
        seconds["crops", False],
        seconds["crops", True],
    )
