"""Usable cores and memory, a network's device, signals, and a map over threads that runs ahead."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
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

    name: ``auto`` takes CUDA where there is one. Of the processes that torchrun starts on a
        machine, each takes a GPU of its own for ``auto`` and ``cuda``.

    Raises:
        ConfigError: torch finds no such device.
    """
    import torch

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if num_gpus else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = torch.device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device is mps, but torch finds no Metal GPU here; use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise ConfigError(
            f"device is {name}, but torch finds {num_gpus or 'no'} CUDA "
            f"{'device' if num_gpus < 2 else 'devices'} here; use cpu or auto"
        )
    return device


def is_first_process() -> bool:
    """Return whether this process is alone, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_signals_to(react: Callable[[int], None]) -> Iterator[None]:
    """Call ``react`` with the number of every SIGTERM and Ctrl-C, within the context.

    Signals are handled in the main thread only; elsewhere no handler is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()
    former = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def handle(number: int, _: FrameType | None) -> None:
        if os.getpid() == owner:
            react(number)
        else:  # a forked worker inherits this handler, and must still die by the signal
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
