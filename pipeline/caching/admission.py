"""What a process proves before it may write shards for another one's run.

Bytes of a store come from libraries, a teacher, images and a lease; a worker on another machine may
see others of each under the same names. No dask in here.
"""

import hashlib
import importlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.caching.shard_worker import ShardTask
from pipeline.coco.image_files import resolve_image, sha256_file
from pipeline.storage.lease import read_holder
from pipeline.teacher_store.opening import StoredPlan

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "numpy": ("numpy",),
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "zarr": ("zarr",),
    "numcodecs": ("numcodecs",),
    "OpenCV": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "Pillow": ("pillow",),
}
"""What moves bytes of a store, and the distributions that it comes in."""


@dataclass(frozen=True)
class Refusal:
    """Why a worker may not write: each reason says what must be, and what was found."""

    worker: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"worker {self.worker}: {'; '.join(self.reasons)}"


@cache
def software() -> dict[str, str]:
    """Return the versions of this program, of Python and of the libraries that move bytes."""
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
    """Return the sha256 over the modules that compute; a version number outlives many of them."""
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


def store_differences(task: ShardTask) -> tuple[str, ...]:
    """Say when the store is not to be seen here, or not held by the task's run."""
    folder, run_id = task.writer.layout.folder, task.writer.run_id
    if folder.size("zarr.json") is None:
        return (f"the store must be seen at {folder}, got nothing there",)
    holder = read_holder(folder)
    if holder != run_id:
        whose = "nobody" if holder is None else f"run {holder[:8]}"
        return (f"{folder} must be held by run {run_id[:8]}, got {whose}",)
    return ()


def image_differences(task: ShardTask, plan: StoredPlan, shard: int) -> tuple[str, ...]:
    """Compare the file of a shard's first image with the plan's digest of it."""
    image = int(plan.people.image_index[task.writer.shard_rows(shard).start])
    path = resolve_image(task.images, plan.people.image_name[image])
    expected = plan.image_sha256[image].tobytes().hex()
    try:
        found = sha256_file(path)
    except FileNotFoundError:
        return (f"image {path} must have sha256 {expected[:12]}, got no such file",)
    if found != expected:
        return (f"image {path} must have sha256 {expected[:12]}, got {found[:12]}",)
    return ()
