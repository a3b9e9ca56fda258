"""Progress, summed."""

from pipeline.progress import summed


def test_pieces_of_work_are_told_as_their_sum() -> None:
    told: list[tuple[int, int]] = []
    add = summed(lambda done, total: told.append((done, total)), 5)
    for piece in (2, 0, 3):
        add(piece)
    assert told == [(2, 5), (2, 5), (5, 5)]


def test_never_more_is_done_than_there_is() -> None:
    told: list[tuple[int, int]] = []
    add = summed(lambda done, total: told.append((done, total)), 1)
    add(2)
    assert told == [(1, 1)]
