"""A cluster worker's task: pass the admission and load the teacher once, then write shards.

The scheduler imports this module too, to pass its function on: heavy modules are imported where a
worker needs them.
"""

import pickle
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from distributed import get_worker

if TYPE_CHECKING:
    from pipeline.caching.admission import Refusal
    from pipeline.caching.shard_worker import ShardOutcome, ShardTask, ShardWorker
    from pipeline.teachers.teacher import Teacher


@dataclass
class _WorkerState:
    """State that one worker keeps between the shards of a run."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while one thread prepares; several threads may then write shards at a time."""
    teacher: "Teacher | None" = None
    teacher_key: tuple[str, str] | None = None
    shards: "ShardWorker | None" = None
    run_id: str | None = None


_STATES: dict[str, _WorkerState] = {}
"""State by the worker's address; a process has one worker, except in tests."""


class Job(TypedDict):
    """Argument of a worker's task; a plain dict, so that another version can still refuse it."""

    software: Mapping[str, str]
    """The coordinator's ``admission.software()``."""
    task: bytes
    """A pickled ``ShardTask``, unpickled only by the same software."""
    teacher_sha256: str
    num_threads: int | None
    """Threads beside the teacher's; None: one for each core that the worker may use."""


def write_shard_on_worker(job: Job, shard: int) -> "ShardOutcome | Refusal":
    """Write a shard of a job, or return the reasons for which this worker may not."""
    from pipeline.caching.admission import Refusal, software_differences

    worker = get_worker()
    state = _STATES.setdefault(worker.address, _WorkerState())
    with state.lock:
        reasons = software_differences(job["software"])
        if not reasons:
            task: ShardTask = pickle.loads(job["task"])
            if state.shards is None or state.run_id != task.writer.run_id:
                reasons = _prepare(state, task, job, shard)
        shards = state.shards
    if reasons:
        return Refusal(f"{worker.address} ({worker.name})", reasons)
    assert shards is not None
    return shards.write_shard(shard)


def _prepare(state: _WorkerState, task: "ShardTask", job: Job, shard: int) -> tuple[str, ...]:
    """Load a run's plan and teacher, or return the reasons for which this worker may not write."""
    from pipeline.caching.admission import image_differences, store_differences
    from pipeline.caching.shard_worker import ShardWorker, read_writers_plan

    state.shards = state.run_id = None
    if reasons := store_differences(task):
        return reasons
    plan = read_writers_plan(task.writer)
    if reasons := image_differences(task, plan, shard):
        return reasons
    teacher = _open_teacher(state, task, job["teacher_sha256"])
    if isinstance(teacher, str):
        return (teacher,)
    # a running cluster does not tell a worker's share of cores: one batch per dask thread
    num_parallel = 1 if job["num_threads"] is None else None
    state.shards = ShardWorker(task, teacher, plan, job["num_threads"], num_parallel)
    state.run_id = task.writer.run_id
    return ()


def _open_teacher(state: _WorkerState, task: "ShardTask", sha256: str) -> "Teacher | str":
    """Return the run's teacher, reused if the run before had it, or why it is not available."""
    from pipeline.errors import TeacherError
    from pipeline.teachers import open_teacher

    key = (sha256, task.teacher_settings.model_dump_json())
    if state.teacher is None or state.teacher_key != key:
        state.teacher = state.teacher_key = None
        wanted = f"teacher {task.teacher} must have sha256 {sha256[:12]}, got"
        try:
            teacher = open_teacher(task.teacher, task.teacher_settings)
        except (TeacherError, FileNotFoundError) as error:
            return f"{wanted}: {error}"
        if teacher.network.sha256 != sha256:
            return f"{wanted} {teacher.network.sha256[:12]}"
        state.teacher, state.teacher_key = teacher, key
    return state.teacher
