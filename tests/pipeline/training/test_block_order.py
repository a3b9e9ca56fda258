"""Whole shards one after the other: every view once a pass, the same for everyone who asks."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.object_folder import MAX_OPEN_FILES
from pipeline.training.view_order import NUM_LANES, SHARDS_PER_GROUP, BlockOrder, ViewBatch

ROWS_PER_SHARD = 10
NUM_VIEWS = 6


def order_of(num_rows: int, batch_size: int = 16, seed: int = 0) -> BlockOrder:
    """Every seventh row is not there, as people are that were left out of a store."""
    rows = np.arange(num_rows, dtype=np.int64)
    return BlockOrder(rows[rows % 7 != 3], ROWS_PER_SHARD, NUM_VIEWS, batch_size, seed)


def pass_of(order: BlockOrder, number: int) -> list[ViewBatch]:
    epochs = range(number * NUM_VIEWS, (number + 1) * NUM_VIEWS)
    return [batch for epoch in epochs for batch in order.batches(epoch)]


def pairs(batches: list[ViewBatch]) -> list[tuple[int, int]]:
    return [
        pair
        for batch in batches
        for pair in zip(batch.instances.tolist(), batch.views.tolist(), strict=True)
    ]


@given(
    num_rows=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 3),
    number=st.integers(0, 2),
)
def test_a_pass_shows_every_view_once_but_for_its_last_steps(
    num_rows: int, batch_size: int, seed: int, number: int
) -> None:
    num_people = len(range(num_rows)) - len(range(3, num_rows, 7))
    order = order_of(num_rows, min(batch_size, num_people), seed)
    shown = pairs(pass_of(order, number))
    assert len(set(shown)) == len(shown) == len(order) * order.batch_size * NUM_VIEWS
    assert num_people * NUM_VIEWS - len(shown) < order.batch_size * NUM_VIEWS
    assert all(row % 7 != 3 and 1 <= view <= NUM_VIEWS for row, view in shown)


def test_a_pass_whose_batches_come_out_even_shows_exactly_every_view() -> None:
    rows = np.arange(960, dtype=np.int64)
    order = BlockOrder(rows, ROWS_PER_SHARD, NUM_VIEWS, 32, 1)
    expected = {(row, view) for row in range(960) for view in range(1, NUM_VIEWS + 1)}
    for number in range(2):
        shown = Counter(pairs(pass_of(order, number)))
        assert set(shown) == expected
        assert set(shown.values()) == {1}


def test_an_epoch_is_the_same_whenever_and_wherever_it_is_asked_for() -> None:
    epochs = [0, 1, NUM_VIEWS - 1, NUM_VIEWS, 3 * NUM_VIEWS + 2]
    forward = order_of(500)
    expected = {epoch: pairs(list(forward.batches(epoch))) for epoch in epochs}
    for epoch in reversed(epochs):
        assert pairs(list(order_of(500).batches(epoch))) == expected[epoch]
    other = order_of(500, seed=1)
    assert pairs(list(other.batches(0))) != expected[0]
    other.epoch = 1
    assert pairs(list(other)) == pairs(list(other.batches(1)))


@pytest.mark.parametrize("start", [1, 5, 17])
def test_an_epoch_that_goes_on_in_its_middle_shows_what_is_left(start: int) -> None:
    whole = list(order_of(500).batches(4))
    assert pairs(list(order_of(500).batches(4, start))) == pairs(whole[start:])


def test_workers_that_take_turns_at_the_batches_show_together_what_one_shows() -> None:
    whole = pairs(list(order_of(500).batches(2)))
    for num_workers in (2, 3, 5):
        batches = list(order_of(500).batches(2))
        shares = [batches[worker::num_workers] for worker in range(num_workers)]
        assert sorted(pairs([b for share in shares for b in share])) == sorted(whole)


def test_passes_differ_and_shuffle_the_people_of_a_batch() -> None:
    order = order_of(2000, batch_size=64)
    first, second = (pass_of(order, number) for number in (0, 1))
    assert pairs(first) != pairs(second)
    for batch in first:
        assert len(np.unique(batch.instances)) > 32
        assert len(np.unique(batch.views)) == NUM_VIEWS


def loads(batches: list[ViewBatch], max_open: int) -> int:
    """Return how often a shard is downloaded by who keeps the last ones that it opened."""
    opened: list[int] = []
    count = 0
    for batch in batches:
        for shard in dict.fromkeys((batch.instances // ROWS_PER_SHARD).tolist()):
            if shard not in opened:  # the one opened first is closed
                opened = [*opened[-max_open + 1 :], shard]
                count += 1
    return count


@pytest.mark.parametrize("num_workers", [1, 2, NUM_LANES])
def test_a_pass_downloads_a_shard_about_once(num_workers: int) -> None:
    """Where a lane ends amid a group two lanes need its shards."""
    num_shards = 200
    order = order_of(num_shards * ROWS_PER_SHARD)
    batches = pass_of(order, 0)
    keeps = MAX_OPEN_FILES
    downloads = sum(loads(batches[worker::num_workers], keeps) for worker in range(num_workers))
    assert num_shards <= downloads <= num_shards + NUM_LANES * SHARDS_PER_GROUP
    mixed = np.random.default_rng(0).permutation(np.array(pairs(batches)))
    shuffled = [ViewBatch(*part.T) for part in np.array_split(mixed, len(batches))]
    assert loads(shuffled, keeps) > 10 * downloads
