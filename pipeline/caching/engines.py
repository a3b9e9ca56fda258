"""Who does the shards: this process, processes of this machine, or a cluster.

dask is imported only for the latter two.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from pipeline.caching.shard_worker import (
    ShardOutcome,
    ShardTask,
    ShardWorker,
    read_writers_plan,
)
from pipeline.caching.stopping import StopRequest
from pipeline.errors import ConfigError
from pipeline.parallel import available_cores
from pipeline.teachers.teacher import Teacher

OnProgress = Callable[[int], None]
Say = Callable[[str], None]


class Engine(Protocol):
    """Has shards done, once and for all."""

    def run(
        self,
        task: ShardTask,
        teacher: Teacher,
        shards: Iterable[int],
        on_progress: OnProgress,
        stop: StopRequest,
    ) -> Iterator[ShardOutcome]:
        """Yield what became of each shard; clusters do so in any order.

        on_progress: told how many views were added.
        stop: once requested no shard is begun; those that were are finished and yielded.

        Raises:
            Stopped: those would not be finished within the grace.
            LeaseError: another run took the store over.
            ClusterError: no worker is left, the scheduler is lost, or a shard failed four times.
        """
        ...


@dataclass(frozen=True)
class EngineChoice:
    """Which engine a run uses; decides nothing about the bytes of a store."""

    num_workers: int | None = None
    """Processes of this machine; None: this one alone."""
    scheduler: str | None = None
    """Address of a running dask scheduler, such as tcp://10.0.0.1:8786."""

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.scheduler is not None:
            raise ConfigError(
                "--workers starts processes here and --scheduler uses a running cluster; give one "
                "of them"
            )
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError(f"--workers must be at least 1, got {self.num_workers}")

    @property
    def is_cluster(self) -> bool:
        return self.num_workers is not None or self.scheduler is not None


THIS_PROCESS = EngineChoice()


@contextmanager
def open_engine(choice: EngineChoice, say: Say = lambda _: None) -> Iterator[Engine]:
    """Yield the engine chosen; what it started ends with the context.

    Raises:
        ClusterError: there is no scheduler at the address.
    """
    if not choice.is_cluster:
        yield PlainLoop()
        return
    from pipeline.caching.cluster import ClusterEngine
    from pipeline.caching.cluster_access import open_client

    share = max(1, available_cores() // choice.num_workers) if choice.num_workers else None
    with open_client(choice.num_workers, choice.scheduler, say) as client:
        yield ClusterEngine(client, say, share)


class PlainLoop:
    """One shard after another, overlapped, with the teacher that was opened already."""

    def run(
        self,
        task: ShardTask,
        teacher: Teacher,
        shards: Iterable[int],
        on_progress: OnProgress,
        stop: StopRequest,
    ) -> Iterator[ShardOutcome]:
        def add_views(count: int) -> None:
            on_progress(count)
            stop.add_views(count)

        worker = ShardWorker(task, teacher, read_writers_plan(task.writer))
        yield from worker.write_shards(shards, add_views, stop.is_requested)
