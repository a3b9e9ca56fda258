"""A dask cluster: processes started here or a running scheduler, and shards assigned to workers.

Every shard is bound to one worker, which has at most two at a time. dask's own placement does not
fit: a worker that refuses does so at once, hence is always the idlest and is given nearly all tasks
(measured: 2,000 refusals of 40 tasks on two workers); tasks restricted to other workers are all
assigned at once, as ``distributed.worker-saturation`` does not queue them. ``retries=`` repeats any
error, bad data included, without a pause or a notice. And a bound task whose worker is lost waits
for another at the same address (distributed #7346), so losses are detected here.

A shard may be written twice: the bytes are the same, and each file replaces the other whole. The
cluster keeps nothing that a resumed run needs.
"""

import importlib.util
import logging
import pickle
import queue
import signal
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import dask
import distributed
from distributed import Worker, WorkerPlugin
from distributed.scheduler import KilledWorker

from pipeline.caching.cluster_worker import Job, Refusal, software, write_shard_on_worker
from pipeline.caching.prediction_stream import OnProgress
from pipeline.caching.shard_worker import ShardOutcome, ShardTask
from pipeline.caching.stopping import StopRequest
from pipeline.errors import ClusterError
from pipeline.teachers.teacher import Teacher
from pipeline.wording import Log, counted

# half of their methods bear no types
Client: Any = distributed.Client
LocalCluster: Any = distributed.LocalCluster

CONNECT_SECONDS = 30
MAX_RETRIES = 3
"""Retries of a shard after an I/O error or the loss of its worker; bad data is not retried."""
RETRY_SECONDS = 1.0
"""Pause before the first retry after an I/O error, doubled with every further one."""
SHARDS_PER_WORKER = 2
"""One being written, one waiting at the worker, so that it never waits for the coordinator."""
POLL_SECONDS = 0.2
WORKERS_SECONDS = 2.0
"""Interval at which the list of workers is read."""
RESULT_SECONDS = 30.0
NO_WORKER_SECONDS = 300.0
"""Longest time without any worker, which batch systems may start late."""


@contextmanager
def open_client(num_workers: int | None, scheduler: str | None, log: Log) -> Iterator[Any]:
    """Yield a client of a cluster of processes here, or of the one at an address.

    Raises:
        ClusterError: there is no scheduler at the address.
    """
    with ExitStack() as stack:
        if scheduler is None:
            assert num_workers is not None
            cluster = stack.enter_context(_local_cluster(num_workers))
            client = stack.enter_context(Client(cluster, set_as_default=False))
            client.register_plugin(_KeepsWorking())
            where = counted(num_workers, "process")
        else:
            try:
                client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
            except (OSError, ValueError) as error:
                raise ClusterError(
                    f"{scheduler} must be the address of a dask scheduler, such as "
                    f"tcp://10.0.0.1:8786, got: {error}"
                ) from error
            stack.enter_context(client)
            where = f"{counted(len(client.nthreads()), 'worker')} at {scheduler}"
        has_bokeh = client.run_on_scheduler(importlib.util.find_spec, "bokeh") is not None
        dashboard = (
            f"dashboard at {client.dashboard_link}"
            if has_bokeh
            else "no dashboard, as bokeh is not installed beside the scheduler"
        )
        log(f"cluster: {where}; {dashboard}")
        yield client


@contextmanager
def _local_cluster(num_workers: int) -> Iterator[Any]:
    settings = {
        "distributed.scheduler.allowed-failures": MAX_RETRIES,  # of a task whose worker is lost
        "distributed.worker.multiprocessing-method": "spawn",
    }
    with dask.config.set(settings), warnings.catch_warnings():
        # a second run on a machine gets another port for its dashboard, which is printed
        warnings.filterwarnings("ignore", message=r"Port \d+ is already in use")
        cluster = LocalCluster(
            n_workers=num_workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # dask would pause a worker near a limit, and its shards with it
            dashboard_address="127.0.0.1:8787",
            silence_logs=logging.ERROR,  # a worker that is killed at the end is no news
        )
    with cluster:
        yield cluster


class _KeepsWorking(WorkerPlugin):
    """Makes a worker ignore SIGINT and SIGTERM, so that the coordinator alone decides when to stop.

    A terminal sends Ctrl-C, and a batch system SIGTERM, to the workers too (distributed #1925).
    """

    idempotent = True
    name = "distil-keeps-working"

    def setup(self, worker: Worker) -> None:
        """Ignore both signals; a worker's setup runs in its main thread."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True)
class _Attempt:
    shard: int
    num_failures: int = 0
    not_before: float = 0.0
    last_worker: str = ""


@dataclass(frozen=True)
class ClusterEngine:
    """Assigns shards to the workers of a cluster, including those that join later."""

    client: Any
    log: Log
    threads_per_worker: int | None
    """Threads beside the teacher's; None: one for each core of the worker."""

    def run(
        self,
        task: ShardTask,
        teacher: Teacher,
        shards: Iterable[int],
        on_progress: OnProgress,
        stop: StopRequest,
    ) -> Iterator[ShardOutcome]:
        """Write shards as ``Engine.run`` does; progress is reported shard by shard."""
        num_views = task.writer.layout.dimensions.num_views
        job = Job(
            software=software(),
            task=pickle.dumps(task),
            teacher_sha256=teacher.network.sha256,
            num_threads=self.threads_per_worker,
        )
        name = f"distil-{task.writer.entry.fingerprint[:12]}-{task.writer.run_id[:12]}"
        run = _Run(self.client, name, job, self.log)
        for outcome in run.outcomes(shards, stop):
            on_progress(num_views * len(task.writer.shard_rows(outcome.shard)))
            yield outcome


class _Run:
    """The shards of one run: those that wait, those that workers have, and the workers."""

    def __init__(self, client: Any, name: str, job: Job, log: Log) -> None:
        """Prepare tasks of a job, whose keys begin with the name."""
        self._client, self._log = client, log
        self._name, self._job = name, job
        self._waiting: deque[_Attempt] = deque()
        self._running: dict[str, tuple[_Attempt, str, Any]] = {}
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._present: dict[str, str] = {}
        self._num_threads: dict[str, int] = {}
        self._refused: dict[str, Refusal] = {}
        self._proven: set[str] = set()
        self._num_submitted = 0
        self._is_stopping = False
        self._read_at = self._had_worker_at = time.monotonic()

    def outcomes(self, shards: Iterable[int], stop: StopRequest) -> Iterator[ShardOutcome]:
        """Yield outcomes as they arrive, until all are there or the stop is complete."""
        self._waiting.extend(_Attempt(shard) for shard in shards)
        self._read_workers()
        try:
            while self._waiting or self._running:
                if stop.is_requested():
                    self._begin_no_more()
                    stop.check_grace()
                else:
                    self._hand_out()
                    self._require_worker()
                with suppress(queue.Empty):
                    outcome = self._settle(self._done.get(timeout=POLL_SECONDS))
                    if outcome is not None:
                        yield outcome
                if time.monotonic() - self._read_at > WORKERS_SECONDS:
                    self._read_workers()
        finally:
            self._drop(list(self._running))

    def _hand_out(self) -> None:
        """Assign waiting shards to workers that have fewer than they may have."""
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            attempt = self._waiting.popleft()
            if attempt.not_before > now:
                self._waiting.append(attempt)
                continue
            address = self._free_worker(attempt.last_worker)
            if address is None:
                self._waiting.appendleft(attempt)
                return
            self._submit(attempt, address)

    def _free_worker(self, last_worker: str) -> str | None:
        """Return the idlest worker with room, if possible another one than ``last_worker``."""
        loads = Counter(address for _, address, _ in self._running.values())
        free = [
            (address == last_worker, loads[address], address)
            for address in self._usable()
            if loads[address] < SHARDS_PER_WORKER
        ]
        return min(free)[2] if free else None

    def _usable(self) -> list[str]:
        return [address for address in self._present if address not in self._refused]

    def _submit(self, attempt: _Attempt, address: str) -> None:
        self._num_submitted += 1
        key = f"{self._name}-{attempt.shard}-{self._num_submitted}"
        future = self._client.submit(
            write_shard_on_worker,
            self._job,
            attempt.shard,
            key=key,
            workers=[address],
            allow_other_workers=False,
            pure=False,
        )
        self._running[key] = (attempt, address, future)
        future.add_done_callback(lambda done: self._done.put(done.key))

    def _settle(self, key: str) -> ShardOutcome | None:
        """Return a task's outcome, or None and put its shard back to be tried again."""
        if key not in self._running:  # dropped meanwhile
            return None
        attempt, address, future = self._running.pop(key)
        try:
            result: ShardOutcome | Refusal = future.result(timeout=RESULT_SECONDS)
        except (OSError, KilledWorker, CancelledError) as error:  # CommClosed is an OSError
            self._require_scheduler()
            self._try_again(attempt, address, error)
            return None
        except ImportError as error:
            if address in self._proven:
                raise
            result = Refusal(address, (f"distil must be installed there, got: {error}",))
        except RuntimeError as error:
            if "deserialization of the task graph" not in str(error):
                raise
            raise ClusterError(
                f"the scheduler must have this distil installed, which it passes on to workers, "
                f"got: {error.__cause__ or error}"
            ) from error
        finally:
            future.release()
        if isinstance(result, Refusal):
            if address not in self._refused:
                self._refused[address] = result
                self._log(f"refused: {result}; its shards go to other workers")
            self._waiting.appendleft(attempt)
            return None
        self._proven.add(address)
        return result

    def _try_again(self, attempt: _Attempt, address: str, error: BaseException) -> None:
        """Put a shard back, unless it failed too often."""
        reason = f"{type(error).__name__}: {error}"
        if attempt.num_failures >= MAX_RETRIES:
            raise ClusterError(
                f"shard {attempt.shard} failed {attempt.num_failures + 1} times, the last time on "
                f"worker {self._describe(address)} with {reason}; the shards that were written "
                f"stay: read that worker's log, then run again with --resume"
            ) from error
        self._log(f"shard {attempt.shard} again: worker {self._describe(address)} raised {reason}")
        pause = 0.0 if isinstance(error, _LostWorkerError) else RETRY_SECONDS
        self._waiting.appendleft(
            replace(
                attempt,
                num_failures=attempt.num_failures + 1,
                not_before=time.monotonic() + pause * 2**attempt.num_failures,
                last_worker=address,
            )
        )

    def _read_workers(self) -> None:
        """Read the list of workers, and put back the shards of those that are lost."""
        self._require_scheduler()
        try:
            # not scheduler_info(): its cache is overwritten with a list without workers
            identity = self._client.sync(self._client.scheduler.identity, n_workers=-1)
        except (OSError, CancelledError) as error:
            raise self._scheduler_is_lost() from error
        self._read_at = time.monotonic()
        found: dict[str, Any] = identity["workers"]
        self._present = {
            address: f"{address} ({worker['name']})"
            for address, worker in found.items()
            if worker["status"] == "running"
        }
        self._num_threads = {address: worker["nthreads"] for address, worker in found.items()}
        for key, (attempt, address, _) in list(self._running.items()):
            if address not in found:
                self._drop([key])
                self._try_again(attempt, address, _LostWorkerError("the worker left"))

    def _require_worker(self) -> None:
        """Raise ClusterError if all workers are refused, or none has been there for too long."""
        now = time.monotonic()
        if self._running or self._usable():
            self._had_worker_at = now
            return
        refusals = "; ".join(str(refusal) for refusal in self._refused.values())
        if self._present:
            raise ClusterError(f"no worker may write this store: {refusals}")
        if now - self._had_worker_at > NO_WORKER_SECONDS:
            raise ClusterError(
                f"the cluster must have a worker, got none for {NO_WORKER_SECONDS:.0f} s; start "
                f"some, then run again with --resume" + (f" ({refusals})" if refusals else "")
            )

    def _begin_no_more(self) -> None:
        """Cancel all shards but those being written, one in each thread of a worker."""
        self._waiting.clear()  # one that failed since is for the next run
        if self._is_stopping:
            return
        self._is_stopping = True
        writing = Counter[str]()
        for key, (_, address, _) in list(self._running.items()):  # in the order of their submission
            writing[address] += 1
            if writing[address] > self._num_threads.get(address, 1):
                self._drop([key])
        self._log(
            f"stopping when workers have written {counted(len(self._running), 'shard')}; a second "
            f"request stops at once"
        )

    def _drop(self, keys: list[str]) -> None:
        """Cancel tasks; those that run already continue, and their results are ignored."""
        futures = [self._running.pop(key)[2] for key in keys]
        if futures and self._client.status == "running":
            with suppress(OSError):
                self._client.cancel(futures)

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise self._scheduler_is_lost()

    def _scheduler_is_lost(self) -> ClusterError:
        return ClusterError(
            "the connection to the scheduler is lost; the shards that were written stay: start "
            "the cluster again, then run again with --resume"
        )

    def _describe(self, address: str) -> str:
        return self._present.get(address, address)


class _LostWorkerError(OSError):
    """A worker has left the cluster."""
