"""Laws of the order of training: everybody once an epoch, every view in turn, nothing hidden."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.training.view_order import BlockOrder, ViewOrder, permutation

INSTANCES = np.array([2, 3, 5, 7, 11, 13, 17])


def order_of(num_views: int | None, batch_size: int = 1, seed: int = 0) -> ViewOrder:
    return ViewOrder(INSTANCES, 1000 + INSTANCES, num_views, batch_size, seed)


def shown(order: ViewOrder, epoch: int) -> dict[int, int]:
    pairs = [
        (int(instance), int(view))
        for batch in order.batches(epoch)
        for instance, view in zip(*batch, strict=True)
    ]
    assert len({instance for instance, _ in pairs}) == len(pairs)
    return dict(pairs)


@given(epoch=st.integers(0, 1000), num_views=st.integers(1, 9), seed=st.integers(0, 5))
def test_everybody_is_shown_once_an_epoch(epoch: int, num_views: int, seed: int) -> None:
    views = shown(order_of(num_views, seed=seed), epoch)
    assert sorted(views) == INSTANCES.tolist()
    assert all(1 <= view <= num_views for view in views.values())


@given(start=st.integers(0, 1000), num_views=st.integers(1, 9))
def test_as_many_epochs_as_views_show_every_view_of_everybody(start: int, num_views: int) -> None:
    order = order_of(num_views)
    epochs = [shown(order, epoch) for epoch in range(start, start + num_views)]
    for instance in INSTANCES.tolist():
        assert {views[instance] for views in epochs} == set(range(1, num_views + 1))


def test_an_epoch_mixes_views() -> None:
    many = np.arange(500)
    order = ViewOrder(many, many, num_views=4, batch_size=500, seed=0)
    (batch,) = order.batches(0)
    assert np.bincount(batch.views, minlength=5)[1:].min() > 90


def test_without_a_store_no_view_is_shown_twice() -> None:
    order = order_of(None)
    assert [set(shown(order, epoch).values()) for epoch in (0, 5)] == [{1}, {6}]


def test_an_epoch_depends_on_no_earlier_one_and_can_start_anywhere() -> None:
    order = order_of(3, batch_size=2)
    order.epoch = 4
    whole = list(order)
    rest = list(order_of(3, batch_size=2).batches(4, start=1))
    for a, b in zip(whole[1:], rest, strict=True):
        assert np.array_equal(a.instances, b.instances)
        assert np.array_equal(a.views, b.views)


def test_a_last_batch_that_is_incomplete_is_dropped() -> None:
    order = order_of(2, batch_size=3)
    assert len(order) == len(list(order)) == 2


def test_a_batch_may_hold_everybody() -> None:
    (batch,) = order_of(2, batch_size=7)
    assert sorted(batch.instances) == INSTANCES.tolist()


@pytest.mark.parametrize("batch_size", [8, 64])
def test_fewer_people_than_a_batch_are_refused_with_both_numbers(batch_size: int) -> None:
    expected = (
        rf"optimisation\.batch_size must be at most the number of people to train on, 7, got "
        rf"{batch_size}; give --batch-size 7 or less"
    )
    with pytest.raises(ConfigError, match=expected):
        order_of(2, batch_size=batch_size)
    with pytest.raises(ConfigError, match=expected):
        BlockOrder(INSTANCES, 4, 2, batch_size, 0)


def test_epochs_and_seeds_give_different_orders() -> None:
    orders = {tuple(permutation(seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6


@pytest.mark.parametrize("length", [1, 2, 1000])
def test_an_order_is_a_permutation(length: int) -> None:
    assert sorted(permutation(3, 4, length)) == list(range(length))
