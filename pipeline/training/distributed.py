"""One training in several processes, which torchrun starts: who computes what, what they share.

Each process computes its rows of every batch; gradients, losses and batch statistics are those of
the whole batch, so the number of processes changes a training by rounding alone. Only the first
process writes the run folder. What is agreed on between steps travels between CPUs, so that no
GPU waits for it.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import ClusterError, ConfigError, DistilError
from pipeline.training.settings import CropChanges, StoreViewSettings
from pipeline.training.view_order import ViewBatch
from store_schemas.errors import StoreError

ValueT = TypeVar("ValueT")

_PATIENCE = timedelta(hours=12)
"""Time that a process waits for another, as while the first one computes COCO figures. One that
has died is noticed at once, by its closed connection."""


class Processes:
    """The processes of one training, seen from one of them."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes, shows and says."""
        return self.rank == 0

    @property
    def num_on_machine(self) -> int:
        """Number of processes on this process's machine."""
        return min(self.size, int(os.environ.get("LOCAL_WORLD_SIZE", self.size)))

    def check_can_share(self, batch_size: int, data: CropChanges) -> None:
        """Refuse settings that cannot be shared.

        Raises:
            ConfigError: a process would get no row of a batch, or corrupt views are to be counted.
        """
        if batch_size < self.size:
            raise ConfigError(
                f"optimisation.batch_size must be at least the number of processes, {self.size}, "
                f"got {batch_size}; give a larger --batch-size, or start fewer processes"
            )
        if self.size > 1 and isinstance(data, StoreViewSettings) and data.on_corrupt == "skip":
            raise ConfigError(
                "data.on_corrupt must be raise where several processes train, as each would count "
                "the corrupt views that it meets alone; repair the store, or train in one process"
            )

    def own_views(self, batch: ViewBatch) -> ViewBatch:
        """Return this process's rows of a batch."""
        return ViewBatch(*(column[self.rank :: self.size] for column in batch))

    def own_rows(self, num_rows: int) -> NDArray[np.int64]:
        """Return this process's rows of a table; every row belongs to exactly one process."""
        return np.arange(self.rank, num_rows, self.size)

    def with_averaged_gradients(self, module: nn.Module, *, may_skip: bool) -> nn.Module:
        """Return a module whose gradients become the mean over the processes.

        may_skip: some weights may get no gradient, which has to be found out in every step.
        """
        if self.size == 1:
            return module
        with warnings.catch_warnings():
            # The option that is to replace it is not in every torch that this runs with.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            # Buffers are batch statistics, which are those of all processes or of each alone.
            return DistributedDataParallel(
                module, broadcast_buffers=False, find_unused_parameters=may_skip
            )

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Return for each flag whether it is set in any process."""
        if self.size == 1:
            return list(flags)
        counts = torch.tensor(flags, dtype=torch.int32)
        distributed.all_reduce(counts)
        return [bool(count) for count in counts.tolist()]

    def summed(self, values: Tensor) -> Tensor:
        """Return the sum over the processes of a tensor on the CPU."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def gathered(self, value: ValueT) -> list[ValueT]:
        """Return the value of every process, in their order."""
        if self.size == 1:
            return [value]
        values: list[ValueT | None] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # each was filled

    def of_first(self, value: ValueT) -> ValueT:
        """Return the value of the first process."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def take_buffers_of_first(self, module: nn.Module) -> None:
        """Copy the buffers of the first process's module, such as batch statistics."""
        for buffer in module.buffers() if self.size > 1 else ():
            distributed.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.any([False])


ALONE = Processes()


@contextmanager
def open_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun has started, if it has.

    One error ends all of them and is raised in one process; the others end in silence.

    Raises:
        ClusterError: another process ended without an error of its own, for example killed.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    except (DistilError, StoreError):
        _end_unless_first_to_fail()
        raise
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        _end_unless_first_to_fail()
        raise ClusterError(
            "another process of this training has ended, so all end; the run folder holds the "
            "last checkpoint: continue with --resume, with any number of processes"
        ) from error
    finally:
        distributed.destroy_process_group()


def _end_unless_first_to_fail() -> None:
    """Exit in silence if another process has failed before; torchrun's store outlives them."""
    try:
        store = distributed.distributed_c10d._get_default_store()
        is_first = store.add("distil/failures", 1) == 1
    except RuntimeError:  # without torchrun the store ends with the first process, which failed
        is_first = False
    if not is_first:
        raise SystemExit(1)


def _is_lost_connection(error: RuntimeError) -> bool:
    words: Iterable[str] = ("Connection closed by peer", "Connection reset by peer", "NCCL")
    is_of_torch = isinstance(error, distributed.DistError)
    return is_of_torch or any(word in str(error) for word in words)
