"""Progress, summed."""

from pipeline.progress import summed
from tests.support.recorded_progress import RecordedProgress


def test_pieces_of_work_are_told_as_their_sum() -> None:
    progress = RecordedProgress()
    add = summed(progress, 5)
    for piece in (2, 0, 3):
        add(piece)
    assert progress.updates == [(2, 5), (2, 5), (5, 5)]


def test_never_more_is_done_than_there_is() -> None:
    progress = RecordedProgress()
    add = summed(progress, 1)
    add(2)
    assert progress.updates == [(1, 1)]
