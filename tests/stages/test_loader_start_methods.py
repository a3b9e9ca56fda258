"""Batches do not depend on how the loader's worker processes are started."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.training.batch import TrainingBatch
from pipeline.training.data import BatchLoader, StartMethod
from pipeline.training.settings import ReplayedViewSettings
from pipeline.training.store_sources import open_store_views
from pipeline.training.view_order import ViewOrder
from tests.support.training_batches import tensors_of

INPUT_SIZE_HW = (64, 48)
NUM_EPOCHS = 3


def epochs(
    drawn: Any, store: Path, start_method: StartMethod | None, *, parent_reads: bool = False
) -> list[list[TrainingBatch]]:
    """Return the batches of three epochs of one loader; None: without workers."""
    views = open_store_views(
        store, drawn.images, ReplayedViewSettings(), reads=frozenset({"heatmaps"})
    )
    order = ViewOrder(views.instances, views.people.instance_id[views.instances], 2, 2, 0)
    dataset = views.dataset(INPUT_SIZE_HW)
    if parent_reads:  # descriptors, indexes and decoded images are then open in this process
        dataset[next(iter(order))]
    num_workers = 0 if start_method is None else 2
    loader = BatchLoader(dataset, order, num_workers, torch.device("cpu"), start_method or "fork")
    return [list(loader.batches_of_epoch(epoch)) for epoch in range(NUM_EPOCHS)]


def assert_equal(found: list[list[TrainingBatch]], expected: list[list[TrainingBatch]]) -> None:
    for one, other in zip(found, expected, strict=True):
        for batch, twin in zip(one, other, strict=True):
            tensors, same = tensors_of(batch), tensors_of(twin)
            assert tensors.keys() == same.keys() >= {"images", "heatmaps", "scale"}
            for name, tensor in tensors.items():
                np.testing.assert_array_equal(tensor.numpy(), same[name].numpy(), err_msg=name)
            assert type(batch) is type(twin)
            assert batch.replacements == twin.replacements


@pytest.mark.parametrize("parent_reads", [False, True])
def test_persistent_forked_workers_give_the_batches_of_this_process(
    drawn: Any, store: Path, parent_reads: bool
) -> None:
    expected = epochs(drawn, store, None)
    assert len(expected[0]) > 2
    assert_equal(epochs(drawn, store, "fork", parent_reads=parent_reads), expected)


@pytest.mark.slow
@pytest.mark.parametrize("parent_reads", [False, True])
@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_persistent_workers_of_any_start_give_the_batches_of_this_process(
    drawn: Any, store: Path, start_method: StartMethod, parent_reads: bool
) -> None:
    """Store and images are then sent as bytes and opened again."""
    found = epochs(drawn, store, start_method, parent_reads=parent_reads)
    assert_equal(found, epochs(drawn, store, None))
