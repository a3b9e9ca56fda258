"""The account of a store's corrupt views over a training: said aloud, logged, and bounded.

Loader workers replace corrupt views (``replacement``) and send word with the batch; the account is
kept where the steps are made, in the order of the steps. Of each epoch metrics.jsonl names what was
new, so that a resumed training takes the account up where the last whole epoch left it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pipeline.training.batch import TrainingBatch
from pipeline.training.replacement import CorruptView
from pipeline.wording import counted
from store_schemas.errors import CorruptError

VIEWS_PER_CORRUPT_VIEW = 1000
"""A training goes on while at most one of so many of its person-views is corrupt."""


class CorruptLedger:
    """Counts the distinct corrupt views and how often one was replaced.

    store: where it lies, for messages.
    num_person_views: people times the views that their epochs take turns at.
    say: told of every corrupt view when it turns up first.
    """

    def __init__(
        self, store: str, num_person_views: int, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._store = store
        self._num_person_views = num_person_views
        self._say = say
        self._seen: dict[tuple[int, int], None] = {}
        self._num_told = 0
        self._num_replaced_before = 0
        self._num_replaced = 0

    @property
    def num_corrupt(self) -> int:
        """Distinct corrupt views so far."""
        return len(self._seen)

    @property
    def most_corrupt(self) -> int:
        """With more corrupt views the training stops."""
        return max(1, self._num_person_views // VIEWS_PER_CORRUPT_VIEW)

    def watch(self, batches: Iterable[TrainingBatch]) -> Iterator[TrainingBatch]:
        """Yield batches, having entered what they say of corrupt views.

        Raises:
            CorruptError: there are too many of them.
        """
        for batch in batches:
            for replacement in batch.replacements:
                self._num_replaced += 1
                for corrupt in replacement.corrupt:
                    self._enter(corrupt, replacement.replaced_by)
            yield batch

    def epoch_facts(self) -> Mapping[str, object]:
        """Return what metrics.jsonl says of the epoch that just ended; nothing if nothing was."""
        new = list(self._seen)[self._num_told :]
        facts: dict[str, object] = {}
        if self._num_replaced > self._num_replaced_before:
            facts["replaced_views"] = self._num_replaced - self._num_replaced_before
            facts["new_corrupt_views"] = [list(row_and_view) for row_and_view in new]
        self._num_told, self._num_replaced_before = len(self._seen), self._num_replaced
        return facts

    def restore(self, lines: Sequence[Mapping[str, object]]) -> None:
        """Take up the account of the epochs that metrics.jsonl holds."""
        self._seen = {
            (row, view): None
            for line in lines
            for row, view in line.get("new_corrupt_views", ())  # type: ignore[attr-defined]
        }
        self._num_replaced = sum(int(str(line.get("replaced_views", 0))) for line in lines)
        self._num_told, self._num_replaced_before = len(self._seen), self._num_replaced

    def summary(self) -> str | None:
        """Say what was replaced since the training began; None: nothing."""
        if not self._num_replaced:
            return None
        return (
            f"corrupt: {self.num_corrupt} of {counted(self._num_person_views, 'person-view')} of "
            f"{self._store}; views replaced by another of the same person: {self._num_replaced}; "
            "restore the store from a copy, or write it again"
        )

    def _enter(self, corrupt: CorruptView, replaced_by: int) -> None:
        place = (corrupt.instance, corrupt.view)
        if place in self._seen:
            return
        self._seen[place] = None
        self._say(
            f"corrupt view {self.num_corrupt} (at most {self.most_corrupt} are skipped), view "
            f"{replaced_by} of the same person takes its place: {corrupt.reason}"
        )
        if self.num_corrupt > self.most_corrupt:
            raise CorruptError(
                f"{self._store}: of {self._num_person_views} person-views in use at most "
                f"{self.most_corrupt} may be corrupt to be skipped (0.1 %, or 1), got "
                f"{self.num_corrupt}, the last one: {corrupt.reason}; then go on with --resume"
            )
