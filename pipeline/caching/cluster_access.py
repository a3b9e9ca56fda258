"""Opens a dask cluster: processes that are started here, or a scheduler that runs already."""

import importlib.util
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
import distributed
from distributed import Worker, WorkerPlugin

from pipeline.errors import ClusterError
from pipeline.wording import Log, counted

# half of their methods bear no types
Client: Any = distributed.Client
LocalCluster: Any = distributed.LocalCluster

CONNECT_SECONDS = 30
WORKER_ALLOWED_FAILURES = 3
"""Lost workers after which dask still retries a task; as many as the retries of a shard."""


@contextmanager
def open_client(num_workers: int | None, scheduler: str | None, log: Log) -> Iterator[Any]:
    """Yield a client of a cluster of processes here, or of the one at an address.

    Raises:
        ClusterError: there is no scheduler at the address.
    """
    if scheduler is None:
        assert num_workers is not None
        with (
            _local_cluster(num_workers) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            client.register_plugin(_KeepsWorking())
            log(f"cluster: {counted(num_workers, 'process')}; {_dashboard(client)}")
            yield client
        return
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"{scheduler} must be the address of a dask scheduler, such as tcp://10.0.0.1:8786, "
            f"got: {error}"
        ) from error
    with client:
        workers = counted(len(client.nthreads()), "worker")
        log(f"cluster: {workers} at {scheduler}; {_dashboard(client)}")
        yield client


@contextmanager
def _local_cluster(num_workers: int) -> Iterator[Any]:
    settings = {
        "distributed.scheduler.allowed-failures": WORKER_ALLOWED_FAILURES,
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


def _dashboard(client: Any) -> str:
    """Describe where the scheduler's dashboard is; it needs bokeh beside the scheduler."""
    if client.run_on_scheduler(importlib.util.find_spec, "bokeh") is None:
        return "no dashboard, as bokeh is not installed beside the scheduler"
    return f"dashboard at {client.dashboard_link}"
