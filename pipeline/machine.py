"""Usable cores, the device of a network, and a map over threads that runs a few items ahead."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import ConfigError
from pipeline.settings import DeviceName

if TYPE_CHECKING:
    import torch

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


def choose_device(name: DeviceName, num_threads: int | None = None) -> "torch.device":
    """Return the device, and set the number of threads of torch's kernels on the CPU.

    name: ``auto`` takes CUDA where there is one.

    Raises:
        ConfigError: the name is ``cuda`` and torch finds no CUDA device.
    """
    import torch

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch finds no CUDA device here; use cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
