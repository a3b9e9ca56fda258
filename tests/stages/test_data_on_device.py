"""Laws of views that are held in memory: the batches are the loader's, bit for bit, or loaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.training import holding
from pipeline.training.augmentation import with_changed_crops
from pipeline.training.batch import TrainingBatch
from pipeline.training.data import BatchLoader
from pipeline.training.distributed import ALONE, Processes
from pipeline.training.holding import HELD_SHARE, hold_what_fits
from pipeline.training.settings import (
    CarriedViewSettings,
    OcclusionSettings,
    ReplayedViewSettings,
    TeacherField,
)
from pipeline.training.store_sources import open_store_views
from stages.cache_teacher import cache_teacher
from tests.support.training_batches import tensors_of

CPU = torch.device("cpu")
HEATMAPS: frozenset[TeacherField] = frozenset({"heatmaps", "keypoints"})
SIZE_HW, SEED = (128, 96), 3


def two_epochs(batches_of_epoch: Any) -> Iterator[TrainingBatch]:
    """Yield the batches of epoch 0 from its second one on, and those of epoch 2."""
    yield from batches_of_epoch(0, 1)
    yield from batches_of_epoch(2, 0)


def require_same(found: Iterator[TrainingBatch], expected: Iterator[TrainingBatch]) -> None:
    pairs = list(zip(found, expected, strict=True))
    assert len(pairs) > 2
    for one, other in pairs:
        tensors, same = tensors_of(one), tensors_of(other)
        assert tensors.keys() == same.keys()
        for name, values in same.items():
            np.testing.assert_array_equal(tensors[name], values, strict=True, err_msg=name)


def hold(views: Any, processes: Processes = ALONE, changes: Any = None) -> tuple[Any, Any, list]:  # type: ignore[type-arg]
    """Return what gives the held batches, what gives the loaded ones, and what was said."""
    dataset, said = views.dataset(SIZE_HW), list[str]()
    changes = changes or views.data
    shown = with_changed_crops(dataset, changes, views.people.instance_id, SEED)
    order = views.order(2, SEED)
    held = hold_what_fits(views, dataset, shown, order, CPU, processes, 0, said.append)
    again = with_changed_crops(views.dataset(SIZE_HW), changes, views.people.instance_id, SEED)
    loader = BatchLoader(again, order, 0, CPU, processes=processes)
    if held is None:
        held = BatchLoader(shown, order, 0, CPU, processes=processes).batches_of_epoch
    return held, loader.batches_of_epoch, said


@pytest.mark.parametrize("processes", [ALONE, Processes(1, 2)])
def test_replayed_views_are_held_whole_and_gathered_bit_for_bit(
    drawn: Any, store: Path, processes: Processes
) -> None:
    views = open_store_views(store, drawn.images, ReplayedViewSettings(), HEATMAPS)
    held, loaded, said = hold(views, processes)
    require_same(two_epochs(held), two_epochs(loaded))
    assert said == [f"held in the memory of cpu: {2 * len(views.instances)} views"]


def test_changes_of_the_crops_are_held_with_them(drawn: Any, store: Path) -> None:
    data = ReplayedViewSettings(occlusion=OcclusionSettings(probability=1.0))
    views = open_store_views(store, drawn.images, data, HEATMAPS)
    held, loaded, _ = hold(views)
    require_same(two_epochs(held), two_epochs(loaded))


def test_held_views_need_neither_store_nor_images(
    drawn: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = open_store_views(store, drawn.images, ReplayedViewSettings(num_views=1), HEATMAPS)
    held, _, _ = hold(views)

    def refuse(*_: Any) -> None:
        raise AssertionError("a view was read again")

    monkeypatch.setattr(type(views.store), "read", refuse)
    assert len(list(held(0, 0))) == len(views.instances) // 2


def test_of_carried_views_the_stored_crops_are_held_and_drawn_from_bit_for_bit(
    inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_teacher(inputs.config(crops=True, views=0))
    views = open_store_views(
        inputs.store, None, CarriedViewSettings(from_crops=True), HEATMAPS, SEED
    )
    held, loaded, said = hold(views)
    assert said == [f"held in memory: crops and predictions of {len(views.instances)} people"]
    expected = list(two_epochs(loaded))

    def refuse(*_: Any) -> None:
        raise AssertionError("a view was read again")

    for name in ("read", "read_wide_crops"):
        monkeypatch.setattr(type(views.store), name, refuse)
    require_same(two_epochs(held), iter(expected))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (CarriedViewSettings(), "carried views are drawn from images anew in every epoch"),
        (ReplayedViewSettings(on_corrupt="skip"), "data.on_corrupt is skip"),
    ],
)
def test_views_that_cannot_be_held_are_loaded_and_the_reason_is_said(
    drawn: Any, store: Path, data: Any, said: str
) -> None:
    views = open_store_views(store, drawn.images, data, HEATMAPS, SEED)
    held, loaded, lines = hold(views)
    assert said in lines[0]
    require_same(two_epochs(held), two_epochs(loaded))


def test_views_beyond_half_of_the_free_memory_are_loaded(
    drawn: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = open_store_views(store, drawn.images, ReplayedViewSettings(), HEATMAPS)
    assert HELD_SHARE == 0.5
    size = (
        2 * len(views.instances) * views.dataset(SIZE_HW)[next(iter(views.order(1, 0)))].num_bytes
    )
    for free, expected in ((2 * size, "held in the memory"), (2 * size - 2, "nothing is held")):
        monkeypatch.setattr(holding, "free_on", lambda *_, free=free: free)
        assert hold(views)[2][0].startswith(expected)
    monkeypatch.setattr(holding, "free_on", lambda *_: None)
    assert "an unknown amount" in hold(views)[2][0]
