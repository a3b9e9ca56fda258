"""Order of views for a store whose shards are downloaded whole: each shard once per pass.

A pass is as many epochs as a person has augmented views, and shows each of them once, as in
``view_order``; but one epoch shows all views of some people instead of one view of every person.
The order is a function of (seed, epoch, position) alone, whatever the processes, workers and
earlier epochs.
"""

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pipeline.training.view_order import ViewBatch, permutation

SHARDS_PER_GROUP = 8
"""Number of shards whose views are shuffled together: about 8,000 views, view 0 included."""
NUM_LANES = 4
"""Number of groups from which batches are taken in turn. Loader workers load batches in turn too,
so with 1, 2 or 4 of them no two read the same group."""


class BlockOrder(Sampler[ViewBatch]):
    """Shows every view of every instance once in ``num_views`` epochs, by groups of shards.

    The shards are shuffled anew in every pass and cut into groups; a group's views are shuffled.
    The sequence is divided into ``NUM_LANES`` lanes, and batches are taken from them in turn.

    instances: (n,), the rows to show, in order.
    rows_per_shard: rows of the store that lie in a shard.

    An incomplete last batch of a pass is dropped, and so are batches beyond the steps of its
    epochs: each epoch has as many steps as one of ``ViewOrder``.
    """

    def __init__(
        self,
        instances: NDArray[np.int64],
        rows_per_shard: int,
        num_views: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self._instances = instances
        starts = np.flatnonzero(np.diff(instances // rows_per_shard, prepend=-1))
        self._shards = np.split(np.arange(len(instances)), starts[1:])
        """Indices into ``instances`` of each shard's people."""
        self._num_views = num_views
        self._seed = seed
        self.batch_size = min(batch_size, len(instances))
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
            yield ViewBatch(self._instances[places], 1 + views)


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
