"""Laws of replacing corrupt views: the next readable one, the same whoever asks, never silence."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.corrupt_views import ReplacingReader, views_in_turn
from pipeline.training.view_order import ViewBatch
from store_schemas.errors import CorruptError, IncompleteError

NUM_PEOPLE, NUM_VIEWS = 4, 5


class DamagedStore:
    """Says of each view which one it is, and cannot read some of them."""

    path = "s.zarr"
    num_views = NUM_VIEWS
    people = SimpleNamespace(instance_id=np.arange(100, 100 + NUM_PEOPLE))

    def __init__(self, *corrupt: tuple[int, int]) -> None:
        self.corrupt = set(corrupt)
        self.num_reads = 0

    def read(self, instances: Any, views: Any) -> Any:
        self.num_reads += 1
        for place in zip(map(int, instances), map(int, views), strict=True):
            if place in self.corrupt:
                raise CorruptError(f"s.zarr: shard 0, row {place[0]}, view {place[1]}: torn")
        return np.stack([instances, views], axis=1)


def reader_of(
    store: DamagedStore, views: range = range(1, NUM_VIEWS)
) -> ReplacingReader[NDArray[np.int64]]:
    """Read (instance, view) of each view that the store could read."""
    return ReplacingReader(cast(TeacherStore, store), views, store.read)


def batch_of(*places: tuple[int, int]) -> ViewBatch:
    instances, views = np.array(places).T
    return ViewBatch(instances, views)


@pytest.mark.parametrize(
    ("corrupt", "asked", "got"),
    [((3,), 3, 4), ((4,), 4, 1), ((3, 4), 3, 1), ((1, 3, 4), 3, 2), ((1,), 3, 3)],
)
def test_the_next_readable_view_takes_the_place_and_view_0_never_does(
    corrupt: tuple[int, ...], asked: int, got: int
) -> None:
    stored, _ = reader_of(DamagedStore(*((2, view) for view in corrupt))).read(
        batch_of((0, 1), (2, asked))
    )
    assert stored.tolist() == [[0, 1], [2, got]]


def test_every_augmented_view_is_tried_once() -> None:
    assert views_in_turn(3, range(1, 5)) == [3, 4, 1, 2]
    assert views_in_turn(0, range(3)) == [0, 1, 2]
    assert views_in_turn(1, range(1, 2)) == [1]


@pytest.mark.parametrize(("asked", "got"), [(1, 3), (2, 3), (3, 3)])
def test_only_a_view_in_use_takes_the_place(asked: int, got: int) -> None:
    """Of the four augmented views of the store, three are in use, and 1 and 2 are corrupt."""
    reader = reader_of(DamagedStore((2, 1), (2, 2)), views=range(1, 4))
    stored, _ = reader.read(batch_of((2, asked)))
    assert stored.tolist() == [[2, got]]
    reader = reader_of(DamagedStore((2, 2), (2, 3)), views=range(1, 4))
    stored, _ = reader.read(batch_of((2, 3)))
    assert stored.tolist() == [[2, 1]]


def test_a_corrupt_view_that_is_the_only_one_in_use_is_an_error_that_says_so() -> None:
    expected = (
        r"s\.zarr: view 1 of person 102 \(row 2\) must be readable, as it is the only one in use; "
        r"repair the store, or use more views \(data\.num_views, cache-teacher --views\): "
        r".*row 2, view 1: torn"
    )
    with pytest.raises(CorruptError, match=expected):
        reader_of(DamagedStore((2, 1)), views=range(1, 2)).read(batch_of((2, 1)))


def test_what_was_passed_over_is_named_with_shard_row_and_view() -> None:
    _, (replacement,) = reader_of(DamagedStore((2, 3), (2, 4))).read(batch_of((2, 3)))
    assert replacement[:3] == (2, 3, 1)
    assert [found[:2] for found in replacement.corrupt] == [(2, 3), (2, 4)]
    assert "shard 0, row 2, view 3" in replacement.corrupt[0].reason


def test_the_views_that_were_asked_for_are_left_alone() -> None:
    batch = batch_of((2, 3))
    reader_of(DamagedStore((2, 3))).read(batch)
    assert batch.views.tolist() == [3]


places = st.tuples(st.integers(0, NUM_PEOPLE - 1), st.integers(1, NUM_VIEWS - 1))
batches = st.lists(places, min_size=1, max_size=6)


@given(
    corrupt=st.sets(st.tuples(st.integers(0, NUM_PEOPLE - 1), st.integers(2, NUM_VIEWS - 1))),
    before=st.lists(batches, max_size=4),
    batch=batches,
)
def test_a_batch_does_not_depend_on_what_a_process_read_before(
    corrupt: set[tuple[int, int]],
    before: list[list[tuple[int, int]]],
    batch: list[tuple[int, int]],
) -> None:
    """Else the number of loader workers, or a resume, would change a training."""
    seasoned = reader_of(DamagedStore(*corrupt))
    for earlier in before:
        seasoned.read(batch_of(*earlier))
    old = seasoned.read(batch_of(*batch))
    new = reader_of(DamagedStore(*corrupt)).read(batch_of(*batch))
    assert old[0].tolist() == new[0].tolist()
    assert old[1] == new[1]
    replaced = {found[:2] for found in new[1]}
    assert replaced == set(batch) & corrupt


def test_a_whole_store_is_read_once_a_batch_and_a_corrupt_view_is_looked_for_once() -> None:
    whole, damaged = DamagedStore(), DamagedStore((2, 3))
    reader_of(whole).read(batch_of((0, 1), (2, 3)))
    assert whole.num_reads == 1
    reader = reader_of(damaged)
    reader.read(batch_of((0, 1), (2, 3)))
    before = damaged.num_reads
    reader.read(batch_of((1, 1), (2, 3)))
    assert damaged.num_reads == before + 1


def test_a_person_without_any_readable_view_is_an_error_that_names_the_person() -> None:
    nothing = DamagedStore(*((2, view) for view in range(1, NUM_VIEWS)))
    expected = (
        r"s\.zarr: of the 4 views in use of person 102 \(row 2\) at least one must be readable "
        r".*got none; view 3: .*row 2, view 3"
    )
    with pytest.raises(CorruptError, match=expected):
        reader_of(nothing).read(batch_of((0, 1), (2, 3)))


def test_only_corruption_is_replaced() -> None:
    store = DamagedStore()

    def fail(*_: Any) -> None:
        raise IncompleteError("not written")

    store.read = fail  # type: ignore[assignment,method-assign]
    with pytest.raises(IncompleteError, match="not written"):
        reader_of(store).read(batch_of((0, 1)))


def test_what_cannot_be_pinned_on_a_view_is_raised() -> None:
    store = DamagedStore()
    read = store.read

    def fail_together(instances: Any, views: Any) -> Any:
        if len(instances) > 1:
            raise CorruptError("together")
        return read(instances, views)

    store.read = fail_together  # type: ignore[method-assign]
    with pytest.raises(CorruptError, match="together"):
        reader_of(store).read(batch_of((0, 1), (2, 3)))
