"""Shards written by the workers of a dask cluster, assigned to them here.

Every shard is bound to one worker, which has at most two at a time. dask's own placement does not
fit: a worker that refuses does so at once, hence is always the idlest and is given nearly all tasks
(measured: 2,000 refusals of 40 tasks on two workers); tasks restricted to other workers are all
assigned at once, as ``distributed.worker-saturation`` does not queue them. ``retries=`` repeats any
error, bad data included, without a pause or a notice. And a bound task whose worker is lost waits
for another at the same address (distributed #7346), so losses are detected here.

A shard may be written twice: the bytes are the same, and each file replaces the other whole. The
cluster keeps nothing that a resumed run needs.
"""

import pickle
import queue
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from distributed import Client
from distributed.scheduler import KilledWorker

from pipeline.caching.admission import Refusal, software
from pipeline.caching.cluster_worker import Job, write_shard_on_worker
from pipeline.caching.prediction_stream import OnProgress
from pipeline.caching.shard_worker import ShardOutcome, ShardTask
from pipeline.caching.stopping import StopRequest
from pipeline.errors import ClusterError
from pipeline.teachers.teacher import Teacher
from pipeline.wording import Log, counted

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


@dataclass(frozen=True)
class _Attempt:
    shard: int
    num_failures: int = 0
    not_before: float = 0.0
    last_worker: str = ""


class ClusterEngine:
    """Assigns shards to the workers of a cluster, including those that join later."""

    def __init__(
        self, client: Client, log: Log = lambda _: None, threads_per_worker: int | None = None
    ) -> None:
        """Use the workers of a client's cluster.

        threads_per_worker: threads beside the teacher's; None: one for each core of the worker.
        """
        self._client: Any = client  # half of its methods bear no types
        self._log = log
        self._num_threads = threads_per_worker

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
            num_threads=self._num_threads,
        )
        name = f"distil-{task.writer.entry.fingerprint[:12]}-{task.writer.run_id[:12]}"
        run = _Run(self._client, name, job, self._log)
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
            self._refuse(address, result)
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

    def _refuse(self, address: str, refusal: Refusal) -> None:
        if address not in self._refused:
            self._refused[address] = refusal
            self._log(f"refused: {refusal}; its shards go to other workers")

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
        if self._is_stopping:
            self._waiting.clear()  # a failed one is for the next run
            return
        self._is_stopping = True
        self._waiting.clear()
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
