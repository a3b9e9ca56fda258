"""Number of usable cores, and a map over threads that runs a bounded number of items ahead."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Return how many cores this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_ahead(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], lookahead: int
) -> Generator[Result]:
    """Yield the result of each item, in order, with at most ``lookahead`` results waiting.

    ``Executor.map`` has no such bound. The thread that consumes the results iterates ``items``;
    once it stops, no further item is begun.
    """
    remaining = iter(items)
    waiting: deque[Future[Result]] = deque()
    try:
        waiting.extend(pool.submit(work, item) for item in islice(remaining, lookahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(remaining, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()
