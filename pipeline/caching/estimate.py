"""Estimates of a store's bytes, every file included, and of the seconds to write it.

A trial is a small store of a few people, written to a temporary folder, measured and removed. It
runs the same code as a whole run, with all views and digests, and waits for the disk.
"""

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.caching.breakdown import Breakdown, sum_breakdowns
from pipeline.caching.inputs import digest_images, draw_view_plan, optional_arrays
from pipeline.caching.settings import CacheSettings, TeacherInputs
from pipeline.caching.shard_worker import ShardTask, ShardWorker
from pipeline.coco.people import People, people_of_rows, spread_rows
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import acquire_lease
from pipeline.teacher_store.plan import read_plan
from pipeline.teacher_store.writer import NewTeacher, begin_teacher
from pipeline.teachers import Teacher
from store_schemas.array_table import array_specs
from store_schemas.chunks import plain_chunk_bytes, shard_index_bytes
from store_schemas.formats import HeatmapProfile, profile_named
from store_schemas.metadata import canonical_json
from store_schemas.people import pack_names
from store_schemas.teacher_store import (
    ArraySpec,
    StoreDimensions,
    planned_rows_per_shard,
)

TYPICAL_BITS_PER_CELL = {"default": 0.78, "small": 0.51, "fast": 0.77, "lossless-float16": 11.2}
"""Bits on disk of a heatmap's cell by profile: measured on stores of real people, rounded up."""
TYPICAL_CROP_BITS_PER_PIXEL = 2.4
"""Bits of a JPEG crop's pixel at the default quality: measured at 256 x 192, rounded up."""
TYPICAL_TOKEN_BITS = {"int8": 7.6, "float16": 16.2}
"""Bits on disk of a token's number by format, without scales: measured, rounded up."""


@dataclass(frozen=True)
class Trial:
    """Bytes and times of a small store."""

    num_views: int
    heatmap_bytes: int
    """Bytes of all views, with checksums and without the shards' indexes; 0 without heatmaps."""
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
    most = _rows_per_shard(config, chosen, teacher)
    rows = min(teacher.settings.batch_size, most, chosen.num_instances)
    new = NewTeacher(
        name="trial",
        identity=teacher.identity(),
        recipe=teacher.execution_recipe(),
        provenance={},
        heatmap_size_hw=teacher.heatmap_size_hw,
        threshold=threshold,
        profile=profile_named(config.profile, teacher.input_size_hw),
        rows_per_shard=None if in_whole_shards else rows,
        optional=optional_arrays(config, teacher),
    )
    with tempfile.TemporaryDirectory(prefix="distil-", dir=scratch) as root:
        folder = LocalFolder(Path(root) / "trial.zarr")
        with acquire_lease(folder) as lease:
            writer = begin_teacher(folder, lease.run_id, chosen, digests, views, new)
            task = ShardTask(writer, config.teacher, teacher.settings, config.images, skip_bad=True)
            worker = ShardWorker(task, teacher, read_plan(writer.layout))
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
        heatmap_bytes=bytes_of.pop("heatmaps", 0),
        optional_bytes=bytes_of,
        document_bytes=sum(size for name, size in sizes.items() if name.endswith("zarr.json")),
        num_slots=_count_slots(dimensions, teacher.settings.batch_size),
        seconds=seconds,
        seconds_per_image_digest=(digested - began) / len(chosen.image_id),
        seconds_per_person_drawn=seconds_drawing / chosen.num_instances,
        breakdown=sum_breakdowns(outcome.breakdown for outcome in outcomes),
    )


def _count_slots(dimensions: StoreDimensions, batch_size: int) -> int:
    """Return the places in all batches; the last batch of each shard is padded."""
    rows, num_views = dimensions.rows_per_shard, dimensions.num_views
    whole, rest = divmod(dimensions.num_instances, rows)
    batches = whole * -(-rows * num_views // batch_size) + -(-rest * num_views // batch_size)
    return batches * batch_size


def _rows_per_shard(config: TeacherInputs, people: People, teacher: Teacher) -> int:
    """Return the people of a whole shard."""
    return planned_rows_per_shard(
        profile_named(config.profile, teacher.input_size_hw),
        optional_arrays(config, teacher),
        people.num_instances,
        config.views + 1,
        (teacher.num_keypoints, *teacher.heatmap_size_hw),
    )


@dataclass(frozen=True)
class StoreEstimate:
    """Size of a store before it is written, and the time to write it."""

    dimensions: StoreDimensions
    num_bytes: float
    """Bytes of all files of the complete store."""
    optional_bytes_per_view: Mapping[str, float]
    """Bytes of crops and tokens, by array."""
    seconds: float | None
    """Wall time on this machine; None: not measured."""
    teacher_seconds: float | None
    """Wall time of the teacher for a view, as many batches at a time as in the run; likewise."""

    @property
    def num_views(self) -> int:
        return self.dimensions.num_instances * self.dimensions.num_views

    def break_even(self, epochs: int) -> int:
        """Return the number of trainings after which the store has paid for itself.

        With the teacher in the loop each of them would let it predict every person in each epoch.
        Without measured times, views are counted in their place.
        """
        num_predicted = epochs * self.dimensions.num_instances
        if self.seconds is None or self.teacher_seconds is None:
            return math.ceil(self.num_views / num_predicted)
        return math.ceil(self.seconds / (num_predicted * self.teacher_seconds))


def expected_dimensions(config: CacheSettings, people: People, teacher: Teacher) -> StoreDimensions:
    """Return the sizes that the store will have."""
    return StoreDimensions(
        num_instances=people.num_instances,
        num_images=len(people.image_id),
        num_ignored=len(people.ignored.annotation_id),
        name_length=pack_names(people.image_name).shape[1],
        num_views=config.views + 1,
        num_keypoints=teacher.num_keypoints,
        heatmap_size_hw=teacher.heatmap_size_hw,
        rows_per_shard=_rows_per_shard(config, people, teacher),
        profile=profile_named(config.profile, teacher.input_size_hw),
        optional=optional_arrays(config, teacher),
    )


def estimate_from_typical_stores(
    config: CacheSettings, people: People, teacher: Teacher
) -> StoreEstimate:
    """Estimate from the figures of typical stores, which give no time."""
    dimensions = expected_dimensions(config, people, teacher)
    cells = math.prod(dimensions.view_shape)
    has_heatmaps = isinstance(dimensions.profile, HeatmapProfile)
    per_view = TYPICAL_BITS_PER_CELL[config.profile] * cells / 8 if has_heatmaps else 0.0
    shapes = dimensions.optional.token_shapes(dimensions.num_keypoints)
    bits = TYPICAL_TOKEN_BITS[config.token_format]
    more = {name: math.prod(shape) * bits / 8 for name, shape in shapes.items()}
    if dimensions.optional.crops is not None:
        stored_hw = dimensions.optional.crops.stored_size_hw(teacher.input_size_hw)
        more["crops"] = math.prod(stored_hw) * TYPICAL_CROP_BITS_PER_PIXEL / 8
    specs = array_specs(dimensions, "teacher")
    documents = sum(len(canonical_json(spec.metadata())) for spec in specs.values())
    size = _num_bytes(dimensions, specs, per_view + sum(more.values()))
    return StoreEstimate(dimensions, size + documents, more, None, None)


def estimate_from_trial(
    config: CacheSettings, people: People, teacher: Teacher, trial: Trial, fixed_seconds: float
) -> StoreEstimate:
    """Estimate from a small store of the same people and teacher.

    fixed_seconds: time of reading the people, opening the teacher and checking it.
    """
    dimensions = expected_dimensions(config, people, teacher)
    per_view = trial.heatmap_bytes / trial.num_views
    more = {name: size / trial.num_views for name, size in trial.optional_bytes.items()}
    per_view += sum(more.values())
    size = _num_bytes(dimensions, array_specs(dimensions, "teacher"), per_view)
    slots = _count_slots(dimensions, teacher.settings.batch_size)
    seconds = (
        fixed_seconds
        + len(np.unique(people.image_index)) * trial.seconds_per_image_digest
        + dimensions.num_instances * trial.seconds_per_person_drawn
        + slots * trial.seconds / trial.num_slots
    )
    teacher_seconds = trial.breakdown.teacher_wall_seconds / trial.num_slots
    return StoreEstimate(dimensions, size + trial.document_bytes, more, seconds, teacher_seconds)


def _num_bytes(
    dimensions: StoreDimensions, specs: dict[str, ArraySpec], sharded_bytes_per_view: float
) -> float:
    """Return the bytes of all chunks and shards."""
    num_views = dimensions.num_instances * dimensions.num_views
    total = num_views * sharded_bytes_per_view
    for spec in specs.values():
        if spec.is_sharded:
            total += spec.num_chunks * shard_index_bytes(spec.rows_per_chunk * spec.shape[1])
        else:
            total += spec.num_chunks * plain_chunk_bytes(spec)
    return total
