"""Counts a store's corrupt views during a training, logs them, and stops above a limit.

Loader workers replace corrupt views (``replacement``) and report them with the batch; the training
loop counts them, in the order of the steps. metrics.jsonl names the views that were new in each
epoch, from which a resumed training restores the counts at the end of the last whole epoch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline.training.batch import TrainingBatch
from pipeline.training.replacement import CorruptView
from pipeline.wording import Log, counted
from store_schemas.errors import CorruptError

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
        """Return the epoch's entries for metrics.jsonl; none if no view was replaced."""
        new = list(self._found)[self._num_found_before :]
        facts: dict[str, object] = {}
        if self._num_replaced > self._num_replaced_before:
            facts["replaced_views"] = self._num_replaced - self._num_replaced_before
            facts["new_corrupt_views"] = [list(row_and_view) for row_and_view in new]
        self._num_found_before, self._num_replaced_before = len(self._found), self._num_replaced
        return facts

    def restore(self, lines: Sequence[Mapping[str, object]]) -> None:
        """Restore the counts from the lines of metrics.jsonl of earlier epochs."""
        self._found = {
            (row, view): None
            for line in lines
            for row, view in line.get("new_corrupt_views", ())  # type: ignore[attr-defined]
        }
        self._num_replaced = sum(int(str(line.get("replaced_views", 0))) for line in lines)
        self._num_found_before, self._num_replaced_before = len(self._found), self._num_replaced

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
