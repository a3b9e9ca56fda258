"""Views of a teacher store that are replaced because their stored chunk cannot be read.

A corrupt view v is replaced by the same person's next readable view of those in use: v + 1, v + 2,
... and after the last one the first one. This depends on the store and the settings alone, so
neither the number of loader workers nor a resume changes it. A view is never filled with zeros, and
a person without any readable view is an error.

Loader workers replace views and report them with the batch. ``CorruptLedger`` counts them where the
steps are made; metrics.jsonl names the new ones of every epoch, and a resumed training counts on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.averaging import AnyTeachers
from pipeline.training.batch import TrainingBatch
from pipeline.training.view_order import ViewBatch
from pipeline.wording import Log, counted
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

    views: the views in use: the augmented ones, from 1 on, or all, where they are carried.
    read: reads a batch of views from (instances, views), each (B,).
    """

    def __init__(
        self,
        store: AnyTeachers,
        views: range,
        read: Callable[[NDArray[np.int64], NDArray[np.int64]], ReadT],
    ) -> None:
        self._store = store
        self._views = views
        self._read = read
        self._corrupt: dict[tuple[int, int], CorruptView] = {}

    def read(self, batch: ViewBatch) -> tuple[ReadT, tuple[Replacement, ...]]:
        """Read the views of a batch, or those that replace them.

        Raises:
            CorruptError: none of a person's views in use can be read; names the person.
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
        for candidate in views_in_turn(view, self._views):
            corrupt = self._corrupt.get((instance, candidate))
            if corrupt is None:
                return Replacement(instance, view, candidate, tuple(passed))
            passed.append(corrupt)
        person = f"person {self._store.people.instance_id[instance]} (row {instance})"
        if len(self._views) == 1:
            raise CorruptError(
                f"{self._store.path}: view {view} of {person} must be readable, as it is the only "
                "one in use; repair the store, or use more views (data.num_views, cache-teacher "
                f"--views): {passed[0].reason}"
            )
        raise CorruptError(
            f"{self._store.path}: of the {len(passed)} views in use of {person} at least one "
            "must be readable to replace the corrupt ones, got none; "
            f"view {view}: {passed[0].reason}"
        )

    def _find_corrupt(self, instances: NDArray[np.int64], views: NDArray[np.int64]) -> None:
        for instance, view in zip(instances.tolist(), views.tolist(), strict=True):
            try:
                self._read(np.array([instance]), np.array([view]))
            except CorruptError as error:
                self._corrupt[instance, view] = CorruptView(instance, view, str(error))


def views_in_turn(view: int, views: range) -> list[int]:
    """Return the views in use in the order in which they are tried, beginning with ``view``."""
    return [views[(view - views.start + turn) % len(views)] for turn in range(len(views))]


VIEWS_PER_CORRUPT_VIEW = 1000
"""A training continues while at most one of this many person-views is corrupt."""


class CorruptLedger:
    """Counts the distinct corrupt views, and how often one was replaced.

    store: path or URL of the store, for messages.
    num_person_views: number of people times the number of views that epochs show in turn.
    log: receives a line for every corrupt view when it is first found.
    """

    def __init__(self, store: str, num_person_views: int, log: Log = lambda _: None) -> None:
        self._store = store
        self._num_person_views = num_person_views
        self._log = log
        self._found: dict[tuple[int, int], None] = {}
        self._num_found_before = 0
        self._num_replaced_before = 0
        self._num_replaced = 0

    @property
    def num_corrupt(self) -> int:
        """Number of distinct corrupt views so far."""
        return len(self._found)

    @property
    def most_corrupt(self) -> int:
        """Largest number of distinct corrupt views with which the training continues."""
        return max(1, self._num_person_views // VIEWS_PER_CORRUPT_VIEW)

    def watch(self, batches: Iterable[TrainingBatch]) -> Iterator[TrainingBatch]:
        """Yield batches unchanged, after counting the corrupt views that they report.

        Raises:
            CorruptError: there are too many of them.
        """
        for batch in batches:
            for replacement in batch.replacements:
                self._num_replaced += 1
                for corrupt in replacement.corrupt:
                    self._count(corrupt, replacement.replaced_by)
            yield batch

    def epoch_facts(self) -> Mapping[str, object]:
        """Return the entries of an epoch that has ended, and begin the next one."""
        facts = self.facts_so_far()
        self._num_found_before, self._num_replaced_before = len(self._found), self._num_replaced
        return facts

    def facts_so_far(self) -> Mapping[str, object]:
        """Return the running epoch's entries for metrics.jsonl; none if no view was replaced."""
        new = list(self._found)[self._num_found_before :]
        facts: dict[str, object] = {}
        if self._num_replaced > self._num_replaced_before:
            facts["replaced_views"] = self._num_replaced - self._num_replaced_before
            facts["new_corrupt_views"] = [list(row_and_view) for row_and_view in new]
        return facts

    def restore(
        self, lines: Sequence[Mapping[str, object]], so_far: Mapping[str, object] = {}
    ) -> None:
        """Restore the counts from the lines of metrics.jsonl of earlier epochs.

        so_far: entries of the running epoch.
        """
        self._found, self._num_replaced = {}, 0
        for line in lines:
            self._take_up(line)
        self._num_found_before, self._num_replaced_before = len(self._found), self._num_replaced
        self._take_up(so_far)

    def _take_up(self, facts: Mapping[str, object]) -> None:
        for row, view in facts.get("new_corrupt_views", ()):  # type: ignore[attr-defined]
            self._found[row, view] = None
        self._num_replaced += int(str(facts.get("replaced_views", 0)))

    def summary(self) -> str | None:
        """Return a line on the views replaced since the training began; None: none were."""
        if not self._num_replaced:
            return None
        return (
            f"corrupt: {self.num_corrupt} of {counted(self._num_person_views, 'person-view')} of "
            f"{self._store}; views replaced by another of the same person: {self._num_replaced}; "
            "repair the store with distil store repair, or restore it from a copy"
        )

    def _count(self, corrupt: CorruptView, replaced_by: int) -> None:
        place = (corrupt.instance, corrupt.view)
        if place in self._found:
            return
        self._found[place] = None
        self._log(
            f"corrupt view {self.num_corrupt} (at most {self.most_corrupt} are skipped), view "
            f"{replaced_by} of the same person takes its place: {corrupt.reason}"
        )
        if self.num_corrupt > self.most_corrupt:
            raise CorruptError(
                f"{self._store}: of {counted(self._num_person_views, 'person-view')} at most "
                f"{self.most_corrupt} may be corrupt and skipped (0.1 %, at least 1), got "
                f"{self.num_corrupt}, the last one: {corrupt.reason}; then continue with --resume"
            )
