"""Work done in threads a little ahead of whoever consumes it, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], lookahead: int
) -> Generator[Result]:
    """Yield what is made of each item, in order, with at most ``lookahead`` results waiting.

    ``Executor.map`` has no such bound. Items are taken by the thread that consumes; what it does
    not wait for any more is not begun.
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
