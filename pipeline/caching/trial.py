"""A trial: a small store of a few people, written to a temporary folder, measured and removed.

It runs the same code as a whole run, with all views and digests, and waits for the disk.
"""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.caching.breakdown import Breakdown, sum_breakdowns
from pipeline.caching.inputs import digest_images, draw_view_plan, optional_arrays
from pipeline.caching.settings import TeacherInputs
from pipeline.caching.shard_worker import ShardTask, ShardWorker, read_writers_plan
from pipeline.coco.people import People, people_of_rows, spread_rows
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import acquire_lease
from pipeline.teacher_store.beginning import NewTeacher, begin_teacher
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teacher_store.writer import TeacherStoreWriter
from pipeline.teachers import Teacher
from store_schemas.chunks import shard_index_bytes
from store_schemas.profiles import profile_named
from store_schemas.teacher_store import default_rows_per_shard

_NAME = "trial"


@dataclass(frozen=True)
class Trial:
    """Bytes and times of a small store."""

    num_views: int
    heatmap_bytes: int
    """Bytes of all views, with checksums and without the shards' indexes."""
    optional_bytes: dict[str, int]
    """Bytes of crops and tokens likewise, by array."""
    document_bytes: int
    """Bytes of all ``zarr.json`` files, which are as long in a large store."""
    num_slots: int
    """Places in the teacher's batches, padding included."""
    seconds: float
    """Time of writing all shards, after a warm-up."""
    seconds_per_image_digest: float
    seconds_per_person_drawn: float
    breakdown: Breakdown


def run_trial(
    config: TeacherInputs,
    people: People,
    teacher: Teacher,
    threshold: float,
    num_people: int,
    *,
    scratch: Path | None = None,
    in_whole_shards: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Trial:
    """Write a store of people spread evenly over all, and measure it.

    threshold: largest error of heat far from a map's peak.
    scratch: folder for the store; None: the system's folder for temporary files.
    in_whole_shards: whether shards are as large as those of a real store; else they have one batch
        of people, so that no batch is padded that would not be padded in a real store.
    on_progress: receives the number of views that were added, those of the warm-up too.

    Raises:
        PeopleError: an image cannot be read.
    """
    chosen = people_of_rows(people, spread_rows(people.num_instances, num_people))
    began = time.perf_counter()
    digests = digest_images(chosen, config.images)
    digested = time.perf_counter()
    views = draw_view_plan(config, chosen, teacher)
    seconds_drawing = time.perf_counter() - digested
    rows = None if in_whole_shards else _rows_per_shard(config, teacher, chosen.num_instances)
    with tempfile.TemporaryDirectory(prefix="distil-", dir=scratch) as root:
        folder = LocalFolder(Path(root) / "trial.zarr")
        with acquire_lease(folder) as lease:
            writer = _create(
                folder, lease.run_id, config, chosen, digests, views, teacher, threshold, rows
            )
            task = ShardTask(writer, config.teacher, teacher.settings, config.images, skip_bad=True)
            worker = ShardWorker(task, teacher, read_writers_plan(writer))
            worker.write_shard(0, on_progress)  # warm-up: libraries load on first use, caches fill
            started = time.perf_counter()
            outcomes = list(worker.write_shards(range(writer.num_shards), on_progress))
            seconds = time.perf_counter() - started
            writer.finish()
        sizes = {name: folder.size(name) or 0 for name in folder.names()}
    specs = writer.layout.shard_specs
    dimensions = writer.layout.dimensions
    index = shard_index_bytes(dimensions.rows_per_shard * dimensions.num_views)
    bytes_of = {
        name: sum(sizes[spec.chunk_name(outcome.shard)] - index for outcome in outcomes)
        for name, spec in specs.items()
        if spec.is_sharded
    }
    return Trial(
        num_views=chosen.num_instances * dimensions.num_views,
        heatmap_bytes=bytes_of.pop("heatmaps"),
        optional_bytes=bytes_of,
        document_bytes=sum(size for name, size in sizes.items() if name.endswith("zarr.json")),
        num_slots=count_slots(
            chosen.num_instances,
            dimensions.num_views,
            dimensions.rows_per_shard,
            teacher.settings.batch_size,
        ),
        seconds=seconds,
        seconds_per_image_digest=(digested - began) / len(chosen.image_id),
        seconds_per_person_drawn=seconds_drawing / chosen.num_instances,
        breakdown=sum_breakdowns(outcome.breakdown for outcome in outcomes),
    )


def count_slots(num_people: int, num_views: int, rows_per_shard: int, batch_size: int) -> int:
    """Return the places in all batches; the last batch of each shard is padded."""
    whole, rest = divmod(num_people, rows_per_shard)
    batches = whole * -(-rows_per_shard * num_views // batch_size)
    batches += -(-rest * num_views // batch_size)
    return batches * batch_size


def _rows_per_shard(config: TeacherInputs, teacher: Teacher, num_people: int) -> int:
    most = default_rows_per_shard(config.views + 1, largest_view_bytes(config, teacher))
    return min(teacher.settings.batch_size, most, num_people)


def largest_view_bytes(config: TeacherInputs, teacher: Teacher) -> int:
    """Return the bytes of one view in the largest array, before compression."""
    cells = teacher.num_keypoints * math.prod(teacher.heatmap_size_hw)
    tokens = optional_arrays(config, teacher).view_bytes(teacher.num_keypoints)
    return max(cells * profile_named(config.profile).bytes_per_cell, tokens)


def _create(
    folder: LocalFolder,
    run_id: str,
    config: TeacherInputs,
    people: People,
    digests: NDArray[np.uint8],
    views: ViewPlan,
    teacher: Teacher,
    threshold: float,
    rows_per_shard: int | None,
) -> TeacherStoreWriter:
    new = NewTeacher(
        name=_NAME,
        identity=teacher.identity(),
        recipe=teacher.execution_recipe(),
        provenance={},
        heatmap_size_hw=teacher.heatmap_size_hw,
        threshold=threshold,
        profile=profile_named(config.profile),
        rows_per_shard=rows_per_shard,
        optional=optional_arrays(config, teacher),
    )
    return begin_teacher(folder, run_id, people, digests, views, new)
