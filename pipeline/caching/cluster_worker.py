"""What a worker of a cluster runs: prove itself once, load the teacher once, then write shards.

The scheduler imports this module too, to pass its function on: everything heavy is imported where
a worker needs it.
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
class _Desk:
    """What one worker keeps between shards, of the last run alone."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Only one thread prepares; a worker with several has as many shards written at a time."""
    teacher: "Teacher | None" = None
    teacher_key: tuple[str, str] | None = None
    shards: "ShardWorker | None" = None
    run_id: str | None = None


_DESKS: dict[str, _Desk] = {}
"""By the worker's address; a process has one worker, but for tests."""


class Job(TypedDict):
    """What is told to a worker; a plain dict, so that another version can still say no."""

    software: Mapping[str, str]
    """The coordinator's ``admission.software()``."""
    task: bytes
    """A pickled ``ShardTask``, opened only by the very same software."""
    teacher_sha256: str
    num_threads: int | None
    """Beside the teacher's; None: all cores that the worker may use."""


def write_shard_on_worker(job: Job, shard: int) -> "ShardOutcome | Refusal":
    """Write a shard of the run that the job belongs to, or say why this worker may not."""
    from pipeline.caching.admission import Refusal, software_differences

    worker = get_worker()
    desk = _DESKS.setdefault(worker.address, _Desk())
    with desk.lock:
        reasons = software_differences(job["software"])
        if not reasons:
            task: ShardTask = pickle.loads(job["task"])
            if desk.shards is None or desk.run_id != task.writer.run_id:
                reasons = _prepare(desk, task, job, shard)
        shards = desk.shards
    if reasons:
        return Refusal(f"{worker.address} ({worker.name})", reasons)
    assert shards is not None
    return shards.write_shard(shard)


def _prepare(desk: _Desk, task: "ShardTask", job: Job, shard: int) -> tuple[str, ...]:
    """Load plan and teacher for a run, or return why this worker may not write its shards."""
    from pipeline.caching.admission import image_differences, store_differences
    from pipeline.caching.shard_worker import ShardWorker, read_writers_plan

    desk.shards = desk.run_id = None
    if reasons := store_differences(task):
        return reasons
    plan = read_writers_plan(task.writer)
    if reasons := image_differences(task, plan, shard):
        return reasons
    teacher = _open_teacher(desk, task, job["teacher_sha256"])
    if isinstance(teacher, str):
        return (teacher,)
    # of a cluster somebody else began, only the number of a worker's threads is its share
    num_looks = 1 if job["num_threads"] is None else None
    desk.shards = ShardWorker(task, teacher, plan, job["num_threads"], num_looks)
    desk.run_id = task.writer.run_id
    return ()


def _open_teacher(desk: _Desk, task: "ShardTask", sha256: str) -> "Teacher | str":
    """Return the run's teacher, from memory if it is there, or say what is there instead."""
    from pipeline.errors import TeacherError
    from pipeline.teachers import open_teacher

    key = (sha256, task.teacher_settings.model_dump_json())
    if desk.teacher is None or desk.teacher_key != key:
        desk.teacher = desk.teacher_key = None
        wanted = f"teacher {task.teacher} must have sha256 {sha256[:12]}, got"
        try:
            teacher = open_teacher(task.teacher, task.teacher_settings)
        except (TeacherError, FileNotFoundError) as error:
            return f"{wanted}: {error}"
        if teacher.network.sha256 != sha256:
            return f"{wanted} {teacher.network.sha256[:12]}"
        desk.teacher, desk.teacher_key = teacher, key
    return desk.teacher
