"""Order of the views that an epoch shows: a function of (seed, epoch, position) alone.

It depends on no process, worker or earlier epoch, so a resumed training gets the same batches as an
uninterrupted one. ``ViewOrder`` shuffles all people; ``BlockOrder`` is for a store whose shards are
downloaded whole, and shows each shard once per pass: a pass is as many epochs as a person has
augmented views, and one epoch shows all views of some people in place of one view of every person.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pipeline.errors import ConfigError


class ViewBatch(NamedTuple):
    """The views of one step."""

    instances: NDArray[np.int64]  # (B,), rows of the people's table
    views: NDArray[np.int64]  # (B,), 1 or more: view 0 is for evaluation


class BatchOrder(Protocol):
    """Which views each batch of an epoch shows."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[ViewBatch]:
        """Yield the batches of an epoch, from the batch at position ``start`` on."""
        ...


class ViewOrder(Sampler[ViewBatch]):
    """Shows every instance once per epoch, in shuffled order, under one of its views.

    With ``num_views`` = V, epoch e shows view 1 + (e + offset) mod V of an instance, its offset
    hashed from its id, so V epochs show all its views and every epoch shows a mixture of views.
    If it is None, epoch e shows view 1 + e, which no epoch before has shown.

    instances: (n,), the rows to show.
    instance_ids: (n,), their ids.

    An incomplete last batch is dropped; its people are shown in other epochs.

    Raises:
        ConfigError: there are fewer people than a batch holds.
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
        self.batch_size = _checked(batch_size, len(instances))
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


def _checked(batch_size: int, num_people: int) -> int:
    """Return the batch size, of which an epoch has at least one whole batch."""
    if batch_size > num_people:
        raise ConfigError(
            "optimisation.batch_size must be at most the number of people to train on, "
            f"{num_people}, got {batch_size}; give --batch-size {num_people} or less"
        )
    return batch_size


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


SHARDS_PER_GROUP = 8
"""Number of shards whose views are shuffled together: about 8,000 views, view 0 included."""
NUM_LANES = 4
"""Number of groups from which batches are taken in turn. Loader workers load batches in turn too,
so with 1, 2 or 4 of them no two read the same group."""


class BlockOrder(Sampler[ViewBatch]):
    """Shows every view of every instance once in ``num_views`` epochs, by groups of shards.

    If ``num_views`` is None, every epoch shows every instance once, and epoch e under view 1 + e.

    The shards are shuffled anew in every pass and cut into groups; a group's views are shuffled.
    The sequence is divided into ``NUM_LANES`` lanes, and batches are taken from them in turn.

    instances: (n,), the rows to show, in order.
    rows_per_shard: rows of the store that lie in a shard.

    An incomplete last batch of a pass is dropped, and so are batches beyond the steps of its
    epochs: each epoch has as many steps as one of ``ViewOrder``.

    Raises:
        ConfigError: there are fewer people than a batch holds.
    """

    def __init__(
        self,
        instances: NDArray[np.int64],
        rows_per_shard: int,
        num_views: int | None,
        batch_size: int,
        seed: int,
    ) -> None:
        self._instances = instances
        starts = np.flatnonzero(np.diff(instances // rows_per_shard, prepend=-1))
        self._shards = np.split(np.arange(len(instances)), starts[1:])
        """Indices into ``instances`` of each shard's people."""
        self._is_fresh = num_views is None
        self._num_views = num_views or 1
        self._seed = seed
        self.batch_size = _checked(batch_size, len(instances))
        self.epoch = 0
        """Epoch of the next iteration."""
        self._sequence: _Sequence | None = None

    def __len__(self) -> int:
        return len(self._instances) // self.batch_size

    def __iter__(self) -> Iterator[ViewBatch]:
        return self.batches(self.epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[ViewBatch]:
        """Yield the batches of an epoch, from the batch at position ``start`` on."""
        number, epoch_in_pass = divmod(epoch, self._num_views)
        sequence = self._sequence
        if sequence is None or sequence.number != number:
            sequence = _Sequence(self._shards, self._num_views, self._seed, number)
            self._sequence = sequence
        num_batches = len(self) * self._num_views
        for position in range(start, len(self)):
            batch = _place_in_lanes(epoch_in_pass * len(self) + position, num_batches)
            pairs = sequence.read(batch * self.batch_size, (batch + 1) * self.batch_size)
            places, views = np.divmod(pairs, self._num_views)
            yield ViewBatch(self._instances[places], 1 + views + (epoch if self._is_fresh else 0))


class _Sequence:
    """The views of a pass in order; only the groups that are being read are kept in memory."""

    def __init__(
        self, shards: list[NDArray[np.int64]], num_views: int, seed: int, number: int
    ) -> None:
        self.number = number
        self._shards, self._num_views, self._seed = shards, num_views, seed
        self._order = permutation(seed, number, len(shards), "shards")
        lengths = num_views * np.array([len(shards[shard]) for shard in self._order], np.int64)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        self._starts = np.append(ends[:-1:SHARDS_PER_GROUP], ends[-1])
        """Where each group begins in the sequence, and where the last one ends."""
        self._groups: OrderedDict[int, NDArray[np.int64]] = OrderedDict()

    def read(self, begin: int, end: int) -> NDArray[np.int64]:
        """Return index * V + view - 1 of the positions begin to end - 1; end > begin."""
        first, last = np.searchsorted(self._starts, [begin, end - 1], side="right") - 1
        found = np.concatenate([self._group(group) for group in range(first, last + 1)])
        start = int(self._starts[first])
        return found[begin - start : end - start]

    def _group(self, group: int) -> NDArray[np.int64]:
        if group not in self._groups:
            self._groups[group] = self._shuffled(group)
            if len(self._groups) > 2 * NUM_LANES:
                self._groups.popitem(last=False)
        self._groups.move_to_end(group)
        return self._groups[group]

    def _shuffled(self, group: int) -> NDArray[np.int64]:
        shards = self._order[group * SHARDS_PER_GROUP : (group + 1) * SHARDS_PER_GROUP]
        places = np.concatenate([self._shards[shard] for shard in shards.tolist()])
        pairs = (places[:, None] * self._num_views + np.arange(self._num_views)).ravel()
        return pairs[permutation(self._seed, self.number, len(pairs), f"group {group}")]


def _place_in_lanes(position: int, num_batches: int) -> int:
    """Return which batch of the sequence is shown at a position: the lanes take turns."""
    lane, turn = position % NUM_LANES, position // NUM_LANES
    length, longer = divmod(num_batches, NUM_LANES)
    return lane * length + min(lane, longer) + turn
