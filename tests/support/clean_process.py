"""Processes that begin with one thread.

pytest's own process has many by then (of dask, torch, an S3 server), and a lock that one of them
holds at a fork stays locked in the child for ever. So children are forked from a server that does
nothing but fork.
"""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["tests.stages.conftest", "cli", "onnxruntime", "PIL.JpegImagePlugin"]
)

"""Starts processes by forking that server, which has loaded all of distil."""

SECONDS_TO_LIVE = 120


def start_process(work: Callable[[], object]) -> ForkServerProcess:
    """Start a process, wait until it works, and return it; it exits with 0 if the work returns.

    work: can be pickled. What a test has patched is not patched there.
    """
    begun, begins = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_work, args=(begins, work))
    process.start()
    begins.close()
    begun.recv()
    return process


def exit_code(process: ForkServerProcess) -> int:
    """Wait for a process; return its exit code, or minus the signal that killed it."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _work(begins: Connection, work: Callable[[], object]) -> None:
    # A shell's background jobs ignore it, and so does all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(SECONDS_TO_LIVE)
    torch.set_num_threads(1)
    code = 1
    try:
        begins.send(None)
        work()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
