"""Usable cores and memory, a network's device, and a map over threads that runs ahead a little."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from pathlib import Path
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


def free_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes of memory this process may still take; None: the system does not say.

    It is what Linux calls available, or what the control groups of this process leave of their
    limits, as in a container, if that is less. Files that the page cache can drop count as free.

    root: where the folders proc and sys lie.
    """
    lines = _numbers_by_name(root / "proc/meminfo")
    if "MemAvailable:" not in lines:
        return None
    return min([1024 * lines["MemAvailable:"], *_left_by_control_groups(root)])


def _left_by_control_groups(root: Path) -> Iterator[int]:
    """Yield what each control group above this process leaves, of version 1 or 2.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    """
    file = root / "proc/self/cgroup"
    for line in file.read_text().splitlines() if file.is_file() else ():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            mount, limit, usage, reclaimable = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit, usage = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            reclaimable = "total_inactive_file"
        else:
            continue
        mounted = root / "sys/fs/cgroup" / mount
        group = mounted / path.strip("/")
        for folder in (group, *group.parents[: len(group.parts) - len(mounted.parts)]):
            # A container may see its own group as the root, and not those above it.
            files = [folder / name for name in (limit, usage)]
            if not all(each.is_file() for each in files):
                continue
            most, used = (each.read_text().strip() for each in files)
            if most != "max":
                kept = int(used) - _numbers_by_name(folder / "memory.stat").get(reclaimable, 0)
                yield max(0, int(most) - kept)


def _numbers_by_name(file: Path) -> dict[str, int]:
    """Read lines of a name and a number; none where there is no such file."""
    lines = file.read_text().splitlines() if file.is_file() else ()
    return {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) > 1}


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
