"""Progress, told as work is done and summed for who wants to hear how far it is."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Told how much is done, and how much there will be."""


def summed(on_progress: OnProgress, total: int) -> Callable[[int], None]:
    """Return what is told of every piece of work as it is done, and passes on the sum.

    total: is all that is told, even where there was more to do than expected.
    """
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        on_progress(min(done, total), total)

    return add
