"""Laws of the account of corrupt views: each is said once, none is lost, too many are an error."""

from collections.abc import Iterator

import pytest
import torch

from pipeline.training.batch import TrainingBatch
from pipeline.training.corrupt_views import CorruptLedger, CorruptView, Replacement
from store_schemas.errors import CorruptError


def replacement(row: int, *views: int, replaced_by: int = 8) -> Replacement:
    """Replace the first view; all views are corrupt."""
    corrupt = tuple(CorruptView(row, v, f"shard 0, row {row}, view {v}: torn") for v in views)
    return Replacement(row, views[0], replaced_by, corrupt)


def batches(*replacements: Replacement) -> Iterator[TrainingBatch]:
    nothing = torch.zeros(0)
    for each in replacements:
        yield TrainingBatch(nothing, nothing, nothing, nothing, nothing)
        yield TrainingBatch(nothing, nothing, nothing, nothing, nothing, replacements=(each,))


def run_epoch(ledger: CorruptLedger, *replacements: Replacement) -> dict[str, object]:
    assert len(list(ledger.watch(batches(*replacements)))) == 2 * len(replacements)
    return dict(ledger.epoch_facts())


@pytest.mark.parametrize(
    ("num_person_views", "most"), [(10, 1), (1999, 1), (2000, 2), (1_200_000, 1200)]
)
def test_one_view_in_a_thousand_may_be_corrupt_and_one_always(
    num_person_views: int, most: int
) -> None:
    ledger = CorruptLedger("s.zarr", num_person_views)
    run_epoch(ledger, *(replacement(row, 1) for row in range(most)))
    assert ledger.num_corrupt == most
    expected = rf"s\.zarr: of {num_person_views} .* at most {most} may be .*got {most + 1}.*row"
    with pytest.raises(CorruptError, match=expected):
        run_epoch(ledger, replacement(most, 1))


def test_a_view_that_was_passed_over_counts_as_well() -> None:
    ledger = CorruptLedger("s.zarr", 2000)
    run_epoch(ledger, replacement(4, 1, 2))
    assert ledger.num_corrupt == 2


def test_a_corrupt_view_is_said_once_however_often_it_is_replaced() -> None:
    said: list[str] = []
    ledger = CorruptLedger("s.zarr", 2000, said.append)
    run_epoch(ledger, replacement(4, 1), replacement(4, 1))
    run_epoch(ledger, replacement(4, 1), replacement(5, 1))
    assert len(said) == 2
    assert "view 8 of the same person takes its place: shard 0, row 4, view 1: torn" in said[0]
    assert "corrupt view 2 (at most 2 are skipped)" in said[1]


def test_an_epochs_line_counts_replacements_and_names_what_is_new() -> None:
    ledger = CorruptLedger("s.zarr", 9000)
    assert run_epoch(ledger) == {}
    facts = run_epoch(ledger, replacement(4, 1, 2), replacement(4, 1, 2))
    assert facts == {"replaced_views": 2, "new_corrupt_views": [[4, 1], [4, 2]]}
    facts = run_epoch(ledger, replacement(4, 1, 2))
    assert facts == {"replaced_views": 1, "new_corrupt_views": []}


def test_a_restored_account_goes_on_as_if_it_had_never_stopped() -> None:
    epochs = [
        (replacement(4, 1),),
        (),
        (replacement(4, 1), replacement(5, 1)),
        (replacement(5, 1),),
    ]
    whole = CorruptLedger("s.zarr", 9000)
    lines: list[dict[str, object]] = [{"event": "validation", "step": 1}]
    for done, replacements in enumerate(epochs):
        resumed = CorruptLedger("s.zarr", 9000)
        resumed.restore(lines)
        facts = run_epoch(whole, *replacements)
        assert run_epoch(resumed, *replacements) == facts, done
        assert resumed.summary() == whole.summary(), done
        lines.append(facts)


def test_the_summary_is_silent_where_nothing_was_replaced() -> None:
    ledger = CorruptLedger("s.zarr", 9000)
    assert ledger.summary() is None
    run_epoch(ledger, replacement(4, 1), replacement(4, 1))
    summary = ledger.summary()
    assert summary is not None
    assert summary.startswith("corrupt: 1 of 9000 person-views of s.zarr; ")
    assert "replaced by another of the same person: 2" in summary
