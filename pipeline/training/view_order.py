"""Order of the views that an epoch shows: a function of (seed, epoch, position) alone.

It depends on no process, worker or earlier epoch, so a resumed training gets the same batches as an
uninterrupted one.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


class ViewBatch(NamedTuple):
    """The views of one step."""

    instances: NDArray[np.int64]  # (B,), rows of the people's table
    views: NDArray[np.int64]  # (B,), 1 or more: view 0 is for evaluation


class ViewOrder(Sampler[ViewBatch]):
    """Shows every instance once per epoch, in shuffled order, under one of its views.

    With ``num_views`` = V, epoch e shows view 1 + (e + offset) mod V of an instance, its offset
    hashed from its id, so V epochs show all its views and every epoch shows a mixture of views.
    If it is None, epoch e shows view 1 + e, which no epoch before has shown.

    instances: (n,), the rows to show.
    instance_ids: (n,), their ids.

    An incomplete last batch is dropped; its people are shown in other epochs. Fewer people than a
    batch make one small batch.
    """

    def __init__(
        self,
        instances: NDArray[np.int64],
        instance_ids: NDArray[np.int64],
        num_views: int | None,
        batch_size: int,
        seed: int,
    ) -> None:
        self._instances = instances
        self._offsets = np.zeros(len(instances), np.int64)
        if num_views is not None:
            offsets = [_offset(seed, instance_id, num_views) for instance_id in instance_ids]
            self._offsets = np.array(offsets, np.int64)
        self._num_views = num_views
        self._seed = seed
        self.batch_size = min(batch_size, len(instances))
        self.epoch = 0
        """Epoch of the next iteration."""

    def __len__(self) -> int:
        return len(self._instances) // self.batch_size

    def __iter__(self) -> Iterator[ViewBatch]:
        return self.batches(self.epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[ViewBatch]:
        """Yield the batches of an epoch, from the batch at position ``start`` on."""
        order = permutation(self._seed, epoch, len(self._instances))
        for position in range(start, len(self)):
            rows = order[position * self.batch_size : (position + 1) * self.batch_size]
            turns = epoch + self._offsets[rows]
            views = 1 + (turns if self._num_views is None else turns % self._num_views)
            yield ViewBatch(self._instances[rows], views)


def permutation(seed: int, epoch: int, length: int, purpose: str = "order") -> NDArray[np.int64]:
    """Return (length,), the shuffled numbers 0 .. length-1 of an epoch; each purpose has its own.

    They sort the raw words of a counter-based generator, whose stream numpy guarantees.
    """
    key = hashlib.sha256(f"{purpose} {seed} {epoch}".encode()).digest()[:16]
    words = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(length)
    return np.argsort(words, kind="stable")


def _offset(seed: int, instance_id: int, num_views: int) -> int:
    digest = hashlib.sha256(f"turn {seed} {instance_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % num_views
