"""Teacher store -> whether its bytes, images and people are unchanged, and its teacher agrees."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.read_everyone import read_everyone, recorded_settings
from pipeline.errors import PeopleError
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.repair.recomputation import (
    ARITHMETIC_TOLERANCE,
    Disagreement,
    recompute_views,
    source_path,
    spread_views,
)
from pipeline.repair.verification import VerifiedStore, bad_images, used_images, verify_store
from pipeline.storage.folder import open_folder
from pipeline.teacher_store.people_comparison import compare_people
from pipeline.teacher_store.plan import StoreLayout, layout_of
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers.stored_teacher import open_stored_teacher
from pipeline.wording import counted
from stages.settings.evaluation import StoreVerifyConfig
from store_schemas.errors import StoreError
from store_schemas.root_metadata import TeacherEntry, read_entry
from store_schemas.teacher_store import Status


@dataclass
class VerifyResult:
    """Result of a verification."""

    store: str
    problems: dict[str, list[str]] = field(default_factory=dict)
    """All faults, a line each, by kind."""
    checked: list[str] = field(default_factory=list)
    """What was checked, in words."""
    unchecked: list[str] = field(default_factory=list)
    """What was not, and why."""
    disagreement: Disagreement | None = None
    """None: the teacher did not run."""

    @property
    def failed(self) -> str | None:
        """All kinds of faults on one line; None if there are none."""
        counts = [f"{len(lines)} of {kind}" for kind, lines in self.problems.items() if lines]
        if not counts:
            return None
        return (
            f"{self.store} must be as it was written, but has faults: {', '.join(counts)}; "
            f"repair what can be repaired with distil store repair"
        )


def store_verify(config: StoreVerifyConfig, progress: Progress = NO_PROGRESS) -> VerifyResult:
    """Compare a store with its metadata and digests, and with what it was made from.

    progress: counts shards, images and views.

    Raises:
        StoreError: the root's metadata cannot be read, or the teacher is another one.
        ConfigError: a given path does not exist.
        TeacherError: the teacher cannot be loaded.
    """
    folder = open_folder(config.store)
    entry = read_entry(folder, config.teacher_name)
    layout = layout_of(folder, entry)
    images = source_path(entry.provenance, "images", config.images)
    annotations = source_path(entry.provenance, "annotations", config.annotations)
    path = None if config.digests_only else source_path(entry.provenance, "teacher", config.teacher)
    teacher = None
    if path is not None:
        teacher = open_stored_teacher(path, entry.identity, entry.execution_recipe)

    total = layout.dimensions.num_shards + (config.sample if teacher and images else 0)
    total += layout.dimensions.num_images if images else 0
    add = summed(progress, total)
    result = VerifyResult(str(folder))
    found = verify_store(layout, entry, add)
    _report_files(result, found, entry)
    wrong_images = _verify_images(result, found, images, add)
    _verify_people(result, found, annotations, config.detections, entry)
    if teacher is None:
        why = "--digests-only" if config.digests_only else "name it with --teacher"
        result.unchecked.append(f"the teacher's predictions: it did not run ({why})")
    else:
        store = _open_for_teacher(result, found, layout, images)
        if store is not None and images is not None:
            # damaged views are reported already: the teacher predicts others
            status = _trusted_status(store, found.faults.shards, wrong_images)
            rows, views = spread_views(status, config.sample, config.seed)
            seen = recompute_views(store, teacher, images, rows, views, add)
            result.disagreement = seen
            result.problems["views predicted again"] = seen.failures
            result.checked.append(f"{counted(seen.num_views, 'view')} predicted again")
    return result


def disagreement_as_lines(found: Disagreement) -> list[str]:
    """Return the differences of teacher and store, with the bound, in lines."""
    if not found.num_views:
        return []
    keypoints = (
        f"keypoints: at most {found.keypoint:.3g} crop pixels apart, confidences "
        f"{found.confidence:.3g}"
    )
    if not np.isfinite(found.excess):
        return [keypoints]  # no heat was compared: the store has none
    return [
        f"heat: at most {found.total:.3g} apart, of that the codec {found.codec:.3g}, the "
        f"arithmetic {found.arithmetic:.3g}",
        f"bound: {found.bound:.3g} where the heat is nearest to it (the codec's, and "
        f"{ARITHMETIC_TOLERANCE:g} for arithmetic); "
        f"{'exceeded by' if found.excess > 0 else 'kept with'} {abs(found.excess):.3g}"
        f"{'' if found.excess > 0 else ' to spare'}",
        keypoints,
    ]


def _report_files(result: VerifyResult, found: VerifiedStore, entry: TeacherEntry) -> None:
    """Put the faults of a store's own files into the result."""
    faults = found.faults
    result.problems["metadata"] = faults.metadata
    result.problems["shards"] = faults.shard_lines()
    if found.manifest is None:
        result.checked.append("metadata")
        result.unchecked.append("shards: the manifest, which holds their digests, is damaged")
    else:
        present = found.manifest.is_present
        result.checked.append(f"metadata and {present.sum()} of {counted(len(present), 'shard')}")
        if not entry.is_complete:
            missing = counted(int((~present).sum()), "shard")
            result.unchecked.append(f"{missing} not written yet")
    if faults.foreign:
        names = ", ".join(faults.foreign[:3])
        files = counted(len(faults.foreign), "file")
        result.unchecked.append(f"{files} that belong to no store, such as {names}")


def _verify_images(
    result: VerifyResult, found: VerifiedStore, images: Path | None, add: Callable[[int], None]
) -> list[int]:
    """Digest the images that people stand in; return those that have changed."""
    if images is None:
        result.unchecked.append("images: they are not where they were; name them with --images")
        return []
    if found.plan is None:
        result.unchecked.append("images: people are damaged")
        return []
    used = used_images(found.plan.people)
    wrong = bad_images(found.plan.people, found.plan.image_sha256, images, used, add)
    result.problems["images"] = list(wrong.values())
    result.checked.append(f"{counted(len(used), 'image')} in {images}")
    return list(wrong)


def _verify_people(
    result: VerifyResult,
    found: VerifiedStore,
    annotations: Path | None,
    detections: Path | None,
    entry: TeacherEntry,
) -> None:
    """Read the annotations again under the recorded settings, and compare the people."""
    if annotations is None:
        result.unchecked.append("annotations: they are not where they were; use --annotations")
        return
    if found.plan is None:
        result.unchecked.append("annotations: people are damaged")
        return
    settings = recorded_settings(entry.provenance, detections)
    source = str(annotations)
    if settings.detections is not None:
        if not settings.detections.exists():
            result.unchecked.append("people: detections are not where they were; use --detections")
            return
        source += f" and {settings.detections}"
    result.checked.append(f"{counted(found.plan.people.num_instances, 'person')} in {source}")
    try:
        compare_people(found.plan.people, read_everyone(annotations, None, settings).people)
    except (PeopleError, StoreError) as error:
        result.problems["people"] = [f"{annotations}: {error}"]


def _open_for_teacher(
    result: VerifyResult, found: VerifiedStore, layout: StoreLayout, images: Path | None
) -> TeacherStore | None:
    """Open a store to compare its views; None, with the reason, where that cannot be."""
    if found.plan is None or found.manifest is None or images is None:
        result.unchecked.append("the teacher's predictions: people, manifest or images are missing")
        return None
    try:
        return TeacherStore.open(layout.folder, layout.teacher, require_complete=False)
    except StoreError as error:
        result.unchecked.append(f"the teacher's predictions: {error}")
        return None


def _trusted_status(
    store: TeacherStore, bad_shards: Iterable[int], bad_images: list[int]
) -> NDArray[np.uint8]:
    """Return the views' status, (N, V) uint8; NOT_WRITTEN for damaged shards and images."""
    status = store.status.copy()
    rows = np.arange(len(status)) // store.rows_per_shard
    is_bad = np.isin(rows, list(bad_shards)) | np.isin(store.people.image_index, bad_images)
    status[is_bad] = Status.NOT_WRITTEN
    return status
