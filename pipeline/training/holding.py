"""Decides which views of a training are held in memory: those that stay the same and fit."""

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Dataset

from pipeline.training.batch import TrainingBatch
from pipeline.training.data import BatchLoader
from pipeline.training.distributed import Processes
from pipeline.training.held_views import (
    AllViews,
    hold_plain_views,
    hold_views,
    num_array_bytes,
)
from pipeline.training.preflight import free_on
from pipeline.training.sources import FreshViews
from pipeline.training.store_data import CarriedViewDataset
from pipeline.training.stored_people import StoredPeople
from pipeline.training.view_order import BatchOrder
from pipeline.wording import Log, counted

HELD_SHARE = 0.5
"""Largest share of the free memory that held views may take: the network needs some too."""
CPU = torch.device("cpu")
_TRIED = 2
"""Number of people or views by which the size of all is estimated."""
BatchesOfEpoch = Callable[[int, int], Iterator[TrainingBatch]]


def hold_what_fits(
    views: FreshViews | StoredPeople,
    dataset: Dataset[TrainingBatch],
    shown: Dataset[TrainingBatch],
    order: BatchOrder,
    device: torch.device,
    processes: Processes,
    num_workers: int,
    say: Log,
) -> BatchesOfEpoch | None:
    """Hold in memory what stays the same from epoch to epoch, and return what gives the batches.

    Replayed views are held as they are, on the device. Of carried ones the stored crops and the
    predictions are held, in RAM, from which the loader goes on to draw. The bits are the same.

    dataset: that of ``views``.
    shown: the same, with the changes of the student's crops.
    say: receives what is held, or why nothing is.
    Returns None where the loader gives the batches.

    Raises:
        DistilError: an image cannot be read, or has changed.
        StoreError: the store cannot be read.
    """
    if isinstance(views, FreshViews):
        say(
            "nothing is held: views of annotations are drawn from images anew in every epoch, of "
            "which each worker keeps data.image_cache_mib decoded"
        )
        return None
    if views.replace_among is not None:
        say("nothing is held: data.on_corrupt is skip, which replaces views as they are read")
        return None
    people = len(views.instances)
    if isinstance(dataset, CarriedViewDataset):
        if views.image_folder is not None:
            say(
                "nothing is held: carried views are drawn from images anew in every epoch, of "
                "which each worker keeps data.image_cache_mib decoded; stored crops are held with "
                "--from-crops"
            )
        elif num_workers and views.start_method != "fork":
            say("nothing is held: workers that read an object store share no memory; use a copy")
        else:
            size = num_array_bytes(dataset.read_plain(views.instances[:_TRIED])) * people
            if _fits(size // min(_TRIED, people), CPU, processes, say):
                hold_plain_views(dataset, views.instances)
                say(f"held in memory: crops and predictions of {counted(people, 'person')}")
        return None
    if views.num_views is None:
        say("nothing is held: the views are drawn anew in every epoch")
        return None
    everything = AllViews(views.instances, views.num_views)
    first = next(everything.batches(0))
    tried = shown[type(first)(*(column[:_TRIED] for column in first))]
    if not _fits(len(everything) * tried.num_bytes // len(tried.images), device, processes, say):
        return None
    loader = BatchLoader(shown, everything, num_workers, CPU, views.start_method)
    held = hold_views(everything, loader.batches_of_epoch(0), device)
    say(f"held in the memory of {device}: {counted(len(everything), 'view')}")
    return held.batches_of_epoch(order, processes)


def _fits(num_bytes: int, device: torch.device, processes: Processes, say: Log) -> bool:
    """Return whether so much may be held, and say so if not."""
    free = free_on(device, processes)
    if free is not None and num_bytes <= HELD_SHARE * free:
        return True
    room = "an unknown amount" if free is None else f"{free / 1e6:.0f} MB"
    say(
        f"nothing is held: all views take {num_bytes / 1e6:.0f} MB, more than {HELD_SHARE:.0%} of "
        f"the free memory ({room})"
    )
    return False
