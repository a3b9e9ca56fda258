"""Engines that write shards: this process, processes of this machine, or a cluster.

dask is imported only for the latter two.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from pipeline.caching.prediction_stream import OnProgress
from pipeline.caching.shard_worker import ShardOutcome, ShardTask, ShardWorker
from pipeline.caching.stopping import StopRequest
from pipeline.errors import ConfigError
from pipeline.machine import available_cores
from pipeline.settings import MAX_PROCESSES
from pipeline.teacher_store.plan import read_plan
from pipeline.teachers.teacher import Teacher
from pipeline.wording import Log


class Engine(Protocol):
    """Writes shards of a store."""

    def run(
        self,
        task: ShardTask,
        teacher: Teacher,
        shards: Iterable[int],
        on_progress: OnProgress,
        stop: StopRequest,
    ) -> Iterator[ShardOutcome]:
        """Write shards and yield the outcome of each; clusters do so in any order.

        on_progress: receives the number of views that were added.
        stop: once it is requested no shard is begun; those begun are finished and yielded.

        Raises:
            Stopped: they would not be finished within the grace.
            LeaseError: another run took the store over.
            ClusterError: no worker is left, the scheduler is lost, or a shard failed four times.
        """
        ...


@dataclass(frozen=True)
class EngineChoice:
    """Engine of a run; the bytes of the store do not depend on it."""

    num_workers: int | None = None
    """Number of processes on this machine; None: this process only."""
    scheduler: str | None = None
    """Address of a running dask scheduler, such as tcp://10.0.0.1:8786."""

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.scheduler is not None:
            raise ConfigError(
                "--workers starts processes here and --scheduler uses a running cluster; give one "
                "of them"
            )
        if self.num_workers is not None and not 1 <= self.num_workers <= MAX_PROCESSES:
            raise ConfigError(f"--workers must be 1 to {MAX_PROCESSES}, got {self.num_workers}")

    @property
    def is_cluster(self) -> bool:
        return self.num_workers is not None or self.scheduler is not None


THIS_PROCESS = EngineChoice()


@contextmanager
def open_engine(choice: EngineChoice, log: Log = lambda _: None) -> Iterator[Engine]:
    """Yield the chosen engine; processes that it starts end with the context.

    Raises:
        ClusterError: there is no scheduler at the address.
    """
    if not choice.is_cluster:
        yield PlainLoop()
        return
    from pipeline.caching.cluster import ClusterEngine, open_client

    share = max(1, available_cores() // choice.num_workers) if choice.num_workers else None
    with open_client(choice.num_workers, choice.scheduler, log) as client:
        yield ClusterEngine(client, log, share)


class PlainLoop:
    """Writes one shard after another, overlapped, with the teacher that is open already."""

    def run(
        self,
        task: ShardTask,
        teacher: Teacher,
        shards: Iterable[int],
        on_progress: OnProgress,
        stop: StopRequest,
    ) -> Iterator[ShardOutcome]:
        """Write shards as ``Engine.run`` does."""

        def add_views(count: int) -> None:
            on_progress(count)
            stop.add_views(count)

        worker = ShardWorker(task, teacher, read_plan(task.writer.layout))
        yield from worker.write_shards(shards, add_views, stop.is_requested)
