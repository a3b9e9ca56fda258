"""Views of a teacher store that are replaced because their stored chunk cannot be read.

A corrupt view v is replaced by the same person's next readable augmented view: v + 1, v + 2, ...
and after the last one view 1. This depends on the store alone, so neither the number of loader
workers nor a resume changes it. A view is never filled with zeros, and a person without any
readable view is an error.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.averaging import AnyTeachers
from pipeline.training.view_order import ViewBatch
from pipeline.wording import counted
from store_schemas.errors import CorruptError

ReadT = TypeVar("ReadT")


class CorruptView(NamedTuple):
    """An augmented view whose stored chunk is missing, torn or altered."""

    instance: int
    """Row of the people's table."""
    view: int
    reason: str
    """Message of the error, which names shard, row and view."""


class Replacement(NamedTuple):
    """A view of a batch, and the view that replaces it."""

    instance: int
    view: int
    replaced_by: int
    corrupt: tuple[CorruptView, ...]
    """``view`` and the views between the two; all of them are corrupt."""


class ReplacingReader(Generic[ReadT]):
    """Reads views of a store and replaces corrupt ones; each process finds them for itself.

    read: reads a batch of views from (instances, views), each (B,).
    """

    def __init__(
        self,
        store: AnyTeachers,
        read: Callable[[NDArray[np.int64], NDArray[np.int64]], ReadT],
    ) -> None:
        self._store = store
        self._read = read
        self._corrupt: dict[tuple[int, int], CorruptView] = {}

    def read(self, batch: ViewBatch) -> tuple[ReadT, tuple[Replacement, ...]]:
        """Read the views of a batch, or those that replace them.

        Raises:
            CorruptError: no augmented view of a person can be read; names the person.
        """
        while True:
            views, replacements = self._replace_known(batch)
            try:
                return self._read(batch.instances, views), replacements
            except CorruptError:
                num_known = len(self._corrupt)
                self._find_corrupt(batch.instances, views)
                if len(self._corrupt) == num_known:  # each view alone can be read
                    raise

    def _replace_known(self, batch: ViewBatch) -> tuple[NDArray[np.int64], tuple[Replacement, ...]]:
        views, replacements = batch.views.copy(), list[Replacement]()
        for i, (instance, view) in enumerate(zip(*map(np.ndarray.tolist, batch), strict=True)):
            if (instance, view) in self._corrupt:
                replacement = self._replace(instance, view)
                views[i] = replacement.replaced_by
                replacements.append(replacement)
        return views, tuple(replacements)

    def _replace(self, instance: int, view: int) -> Replacement:
        passed: list[CorruptView] = []
        for candidate in views_in_turn(view, self._store.num_views):
            corrupt = self._corrupt.get((instance, candidate))
            if corrupt is None:
                return Replacement(instance, view, candidate, tuple(passed))
            passed.append(corrupt)
        raise CorruptError(
            f"{self._store.path}: of the {counted(len(passed), 'augmented view')} of person "
            f"{self._store.people.instance_id[instance]} (row {instance}) at least one must be "
            f"readable to replace the corrupt ones, got none; view {view}: {passed[0].reason}"
        )

    def _find_corrupt(self, instances: NDArray[np.int64], views: NDArray[np.int64]) -> None:
        for instance, view in zip(instances.tolist(), views.tolist(), strict=True):
            try:
                self._read(np.array([instance]), np.array([view]))
            except CorruptError as error:
                self._corrupt[instance, view] = CorruptView(instance, view, str(error))


def views_in_turn(view: int, num_views: int) -> list[int]:
    """Return all augmented views, 1 to num_views - 1, in the order in which they are tried."""
    num_augmented = num_views - 1
    return [1 + (view - 1 + turn) % num_augmented for turn in range(num_augmented)]
