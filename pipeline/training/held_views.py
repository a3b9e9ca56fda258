"""Views of small stores, kept in memory from the start: on the device, or in RAM.

Replayed views never change, so whole batches' rows lie in the device's memory and are gathered
there; the loader is not needed. Carried views are drawn anew, so that only what they are drawn from
is kept, in the RAM that the loader's workers share: the decoded crops of a store, and its heatmaps.
Either way every batch has the bits that the loader gives without.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.training.batch import TrainingBatch
from pipeline.training.distributed import Processes
from pipeline.training.view_order import BatchOrder, ViewBatch

ROWS_AT_ONCE = 64
RowsT = TypeVar("RowsT")


class AllViews:
    """The order in which every view is read once, to be held."""

    def __init__(self, instances: NDArray[np.int64], num_views: int) -> None:
        self.instances, self.num_views = instances, num_views

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self.instances) * self.num_views

    def batches(self, epoch: int, start: int = 0) -> Iterator[ViewBatch]:
        """Yield all views, person by person."""
        for begin in range(start * ROWS_AT_ONCE, len(self), ROWS_AT_ONCE):
            numbers = np.arange(begin, min(begin + ROWS_AT_ONCE, len(self)))
            rows, views = np.divmod(numbers, self.num_views)
            yield ViewBatch(self.instances[rows], 1 + views)


@dataclass(frozen=True)
class HeldViews:
    """All views of some people, view 1 to ``num_views``, as one batch on a device."""

    views: TrainingBatch
    places: NDArray[np.int64]
    """(N,), place among the people held of each row of the people's table."""
    num_views: int

    def gather(self, batch: ViewBatch) -> TrainingBatch:
        """Return the rows of a batch, on the device."""
        rows = self.places[batch.instances] * self.num_views + batch.views - 1
        return self.views.take(torch.from_numpy(rows))

    def batches_of_epoch(
        self, order: BatchOrder, processes: Processes
    ) -> Callable[[int, int], Iterator[TrainingBatch]]:
        """Return what gives this process's rows of the batches of an epoch, from a position on."""

        def batches(epoch: int, start: int = 0) -> Iterator[TrainingBatch]:
            return map(self.gather, map(processes.own_views, order.batches(epoch, start)))

        return batches


def hold_views(
    order: AllViews, batches: Iterable[TrainingBatch], device: torch.device
) -> HeldViews:
    """Copy all views to a device; batches: those of ``order``."""
    held: TrainingBatch | None = None
    begin = 0
    for batch in batches:
        if held is None:
            held = batch.like(len(order), device)
        held.put(begin, batch)
        begin += len(batch.images)
    assert held is not None
    assert begin == len(order)
    return HeldViews(held, places_of(order.instances), order.num_views)


def places_of(instances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row of the people's table its place among ``instances``; others get -1."""
    places = np.full(int(instances.max()) + 1, -1, np.int64)
    places[instances] = np.arange(len(instances))
    return places


class ReadsPlainViews(Protocol):
    """A data set that reads the plain view of a person from a store, and may hold all of them."""

    def read_plain(self, instances: NDArray[np.int64]) -> Any:
        """Read records of arrays whose first axis is that of (B,) rows of the people's table."""
        ...

    def hold(self, read_held: Callable[[NDArray[np.int64]], Any]) -> None:
        """Read plain views by this function from now on."""
        ...


def hold_plain_views(dataset: ReadsPlainViews, instances: NDArray[np.int64]) -> None:
    """Read the plain views of people once, and have the data set take them from memory."""
    first = dataset.read_plain(instances[:1])
    held = _map(first, lambda array: np.empty((len(instances), *array.shape[1:]), array.dtype))
    for begin in range(0, len(instances), ROWS_AT_ONCE):
        _copy(dataset.read_plain(instances[begin : begin + ROWS_AT_ONCE]), held, begin)
    places = places_of(instances)
    dataset.hold(lambda rows: _map(held, lambda array: array[places[rows]]))


def _map(record: RowsT, change: Callable[[NDArray[Any]], NDArray[Any]]) -> RowsT:
    """Change the arrays of nested records."""
    if isinstance(record, np.ndarray):
        return change(record)  # type: ignore[return-value]
    if is_dataclass(record) and not isinstance(record, type):
        changed = {f.name: _map(getattr(record, f.name), change) for f in fields(record)}
        return replace(record, **changed)
    if isinstance(record, tuple) and hasattr(record, "_fields"):
        return type(record)(*(_map(each, change) for each in record))
    return record


def _copy(record: object, held: object, begin: int) -> None:
    """Copy the rows of a record's arrays into those that hold all rows."""
    if isinstance(record, np.ndarray):
        assert isinstance(held, np.ndarray)
        held[begin : begin + len(record)] = record
        return
    names = (
        [f.name for f in fields(record)] if is_dataclass(record) else getattr(record, "_fields", ())
    )
    for name in names:
        _copy(getattr(record, name), getattr(held, name), begin)


def num_array_bytes(record: object) -> int:
    """Return the size of the arrays of nested records."""
    sizes: list[int] = []

    def note(array: NDArray[Any]) -> NDArray[Any]:
        sizes.append(array.nbytes)
        return array

    _map(record, note)
    return sum(sizes)
