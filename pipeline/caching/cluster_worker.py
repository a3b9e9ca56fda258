"""A cluster worker's task: pass the checks and load the teacher once, then write shards.

The bytes of a store depend on libraries, the teacher, the images and the lease; on another machine
the same names may stand for different ones. The scheduler imports this module too, to pass its
function on: heavy modules are imported where a worker needs them.
"""

import hashlib
import importlib
import pickle
import platform
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from distributed import get_worker

if TYPE_CHECKING:
    from pipeline.caching.shard_worker import ShardOutcome, ShardTask, ShardWorker
    from pipeline.teacher_store.plan import StoredPlan
    from pipeline.teachers.teacher import Teacher

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "numpy": ("numpy",),
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "zarr": ("zarr",),
    "numcodecs": ("numcodecs",),
    "OpenCV": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "Pillow": ("pillow",),
}
"""Libraries that decide bytes of a store, and the distributions that contain each."""


@dataclass(frozen=True)
class Refusal:
    """Reasons for which a worker may not write; each names what is expected and what was found."""

    worker: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"worker {self.worker}: {'; '.join(self.reasons)}"


@cache
def software() -> dict[str, str]:
    """Return the versions of this program, of Python and of the libraries that decide bytes."""
    packages = {name: _version(*names) for name, names in PACKAGES.items()}
    python = ".".join(platform.python_version_tuple()[:2])
    program = f"{version('distil-pose')} of source {_source_digest()[:12]}"
    return {"distil": program, "Python": python, **packages}


def _version(*distributions: str) -> str:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not installed"


def _source_digest() -> str:
    """Return the sha256 over the source, which changes more often than the version number."""
    digest = hashlib.sha256()
    for package in ("pipeline", "store_schemas"):
        root = Path(next(iter(importlib.import_module(package).__path__)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def software_differences(expected: Mapping[str, str]) -> tuple[str, ...]:
    """List the versions here that are not the expected ones."""
    found = software()
    return tuple(
        f"{name} must be {value}, got {found.get(name, 'nothing')}"
        for name, value in expected.items()
        if found.get(name) != value
    )


def store_differences(task: "ShardTask") -> tuple[str, ...]:
    """Return why the store cannot be written here: it is not readable, or another run holds it."""
    from pipeline.storage.lease import read_holder

    folder, run_id = task.writer.layout.folder, task.writer.run_id
    if folder.size("zarr.json") is None:
        return (f"the store must be readable at {folder}, got nothing there",)
    holder = read_holder(folder)
    if holder != run_id:
        whose = "no run" if holder is None else f"run {holder[:8]}"
        return (f"{folder} must be held by run {run_id[:8]}, got {whose}",)
    return ()


def image_differences(task: "ShardTask", plan: "StoredPlan", shard: int) -> tuple[str, ...]:
    """Compare the file of a shard's first image with the plan's digest of it."""
    from pipeline.coco.image_files import resolve_image, sha256_file
    from pipeline.errors import ImageError

    image = int(plan.people.image_index[task.writer.shard_rows(shard).start])
    path = resolve_image(task.images, plan.people.image_name[image])
    expected = plan.image_sha256[image].tobytes().hex()
    try:
        found = sha256_file(path)
    except ImageError:
        return (f"image {path} must have sha256 {expected[:12]}, got no readable file",)
    if found != expected:
        return (f"image {path} must have sha256 {expected[:12]}, got {found[:12]}",)
    return ()


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
    """The coordinator's ``software()``."""
    task: bytes
    """A pickled ``ShardTask``, unpickled only by the same software."""
    teacher_sha256: str
    num_threads: int | None
    """Threads beside the teacher's; None: one for each core that the worker may use."""


def write_shard_on_worker(job: Job, shard: int) -> "ShardOutcome | Refusal":
    """Write a shard of a job, or return the reasons for which this worker may not."""
    worker = get_worker()
    state = _STATES.setdefault(worker.address, _WorkerState())
    with state.lock:
        reasons = software_differences(job["software"])
        if not reasons:
            task: ShardTask = pickle.loads(job["task"])
            if state.shards is None or state.run_id != task.writer.run_id:
                reasons = _prepare(state, task, job, shard, worker.name)
        shards = state.shards
    if reasons:
        return Refusal(f"{worker.address} ({worker.name})", reasons)
    assert shards is not None
    return shards.write_shard(shard)


def _prepare(
    state: _WorkerState, task: "ShardTask", job: Job, shard: int, name: object
) -> tuple[str, ...]:
    """Load a run's plan and teacher, or return the reasons for which this worker may not write."""
    from pipeline.caching.shard_worker import ShardWorker
    from pipeline.teacher_store.plan import read_plan

    state.shards = state.run_id = None
    if reasons := store_differences(task):
        return reasons
    plan = read_plan(task.writer.layout)
    if reasons := image_differences(task, plan, shard):
        return reasons
    is_started_here = job["num_threads"] is not None
    number = name if is_started_here and isinstance(name, int) else None
    teacher = _open_teacher(state, task, job["teacher_sha256"], number)
    if isinstance(teacher, str):
        return (teacher,)
    # a running cluster does not tell a worker's share of cores: one batch per dask thread
    num_parallel = 1 if job["num_threads"] is None else None
    state.shards = ShardWorker(task, teacher, plan, job["num_threads"], num_parallel)
    state.run_id = task.writer.run_id
    return ()


def device_of_worker(device: str, number: int | None, num_gpus: int) -> str:
    """Return the device of one of the workers that share a machine, so that each has its own GPU.

    number: that of a worker which ``--workers`` has started; None: a worker of another cluster,
        which gives each of them its GPU, for example by CUDA_VISIBLE_DEVICES.
    """
    if device not in ("auto", "cuda") or num_gpus < 2 or number is None:
        return device
    return f"cuda:{number % num_gpus}"


def _open_teacher(
    state: _WorkerState, task: "ShardTask", sha256: str, number: int | None
) -> "Teacher | str":
    """Return the run's teacher, reused if the run before had it, or why it is not available."""
    import torch

    from pipeline.errors import TeacherError
    from pipeline.teachers import open_teacher

    key = (sha256, task.teacher_settings.model_dump_json())
    if state.teacher is None or state.teacher_key != key:
        state.teacher = state.teacher_key = None
        wanted = f"teacher {task.teacher} must have sha256 {sha256[:12]}, got"
        device = device_of_worker(task.teacher_settings.device, number, torch.cuda.device_count())
        settings = task.teacher_settings.model_copy(update={"device": device})
        try:
            teacher = open_teacher(task.teacher, settings)
        except (TeacherError, FileNotFoundError) as error:
            return f"{wanted}: {error}"
        if teacher.network.sha256 != sha256:
            return f"{wanted} {teacher.network.sha256[:12]}"
        state.teacher, state.teacher_key = teacher, key
    return state.teacher
