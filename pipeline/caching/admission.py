"""Checks that a worker must pass before it may write shards of a run on another machine.

The bytes of a store depend on libraries, the teacher, the images and the lease; on another machine
the same names may stand for different ones. This module does not import dask.
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


def store_differences(task: ShardTask) -> tuple[str, ...]:
    """Return why the store cannot be written here: it is not readable, or another run holds it."""
    folder, run_id = task.writer.layout.folder, task.writer.run_id
    if folder.size("zarr.json") is None:
        return (f"the store must be readable at {folder}, got nothing there",)
    holder = read_holder(folder)
    if holder != run_id:
        whose = "no run" if holder is None else f"run {holder[:8]}"
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
