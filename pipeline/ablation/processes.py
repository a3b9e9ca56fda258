"""Trainings as processes: several at once, each with a log of its own."""

import fcntl
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import RunFolderError

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """One command of distil, and the file that its output goes to."""

    name: str
    words: tuple[str, ...]
    log: Path


def run_jobs(
    jobs: Sequence[Job],
    at_once: int,
    lock: int,
    on_end: Callable[[Job, int], None],
    on_wait: Callable[[], None] = lambda: None,
) -> None:
    """Run all jobs, some at once, in their order; one that fails does not stop the others.

    lock: descriptor that the processes inherit, so that the lock lasts as long as any of them.
    on_end: called with a job and its exit code, negative for a signal.
    on_wait: called while jobs are running.
    """
    waiting, running = deque(jobs), dict[Job, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.popleft()
                running[job] = _start(job, lock)
            on_wait()
            time.sleep(POLL_SECONDS)
            for job, process in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[job]
                    on_end(job, code)
    except BaseException:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        raise


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Lock a folder for one sweep and the processes that it starts; yields the descriptor.

    Raises:
        RunFolderError: another sweep, or a training that one started, still works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "sweep.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(
                f"another distil ablate, or a training that it started, still works in {folder}; "
                "wait for it or stop it, or choose another --output"
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def last_line(log: Path) -> str:
    """Return the last line of a log that says something; empty if there is none."""
    if not log.is_file():
        return ""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")


def command_of(words: Sequence[str]) -> list[str]:
    """Return the command that runs distil in this very environment, whatever folder this is."""
    return [sys.executable, "-P", "-m", "cli", *words]


def _start(job: Job, lock: int) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            command_of(job.words),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
        )
