"""Who does the shards: so far this process, one after another."""

from collections.abc import Callable, Iterable, Iterator

from pipeline.caching.shard_worker import ShardOutcome, ShardWorker


def run_here(
    worker: ShardWorker, shards: Iterable[int], on_progress: Callable[[int], None]
) -> Iterator[ShardOutcome]:
    """Yield what became of each shard, in order.

    on_progress: told how many views were added.
    """
    for shard in shards:
        yield worker.write_shard(shard, on_progress)
