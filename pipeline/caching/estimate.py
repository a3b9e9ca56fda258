"""Estimates of a store's bytes, every file included, and of the seconds to write it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.caching.inputs import optional_arrays
from pipeline.caching.settings import CacheSettings
from pipeline.caching.trial import Trial, count_slots, largest_view_bytes
from pipeline.coco.people import People
from pipeline.frames.geometry import SizeHW
from pipeline.teachers import Teacher
from store_schemas.chunks import plain_chunk_bytes, shard_index_bytes
from store_schemas.formats import profile_named
from store_schemas.metadata import canonical_json
from store_schemas.people import pack_names
from store_schemas.teacher_store import (
    ArraySpec,
    StoreDimensions,
    array_specs,
    default_rows_per_shard,
)

TYPICAL_BITS_PER_CELL = {"default": 0.78, "small": 0.51, "fast": 0.77, "lossless-float16": 11.2}
"""Bits on disk of a heatmap's cell by profile: measured on stores of real people, rounded up."""
TYPICAL_CROP_BITS_PER_PIXEL = 2.4
"""Bits of a JPEG crop's pixel at the default quality: measured at 256 x 192, rounded up."""
TYPICAL_TOKEN_BITS = 16.2
"""Bits on disk of a float16 of a token, which lz4 cannot shorten: measured, rounded up."""


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

    @property
    def num_views(self) -> int:
        return self.dimensions.num_instances * self.dimensions.num_views


def expected_dimensions(config: CacheSettings, people: People, teacher: Teacher) -> StoreDimensions:
    """Return the sizes that the store will have."""
    num_views, profile = config.views + 1, profile_named(config.profile)
    optional = optional_arrays(config, teacher)
    return StoreDimensions(
        num_instances=people.num_instances,
        num_images=len(people.image_id),
        num_ignored=len(people.ignored.annotation_id),
        name_length=pack_names(people.image_name).shape[1],
        num_views=num_views,
        num_keypoints=teacher.num_keypoints,
        heatmap_size_hw=teacher.heatmap_size_hw,
        rows_per_shard=default_rows_per_shard(num_views, largest_view_bytes(config, teacher)),
        profile=profile,
        optional=optional,
    )


def estimate_from_typical_stores(
    config: CacheSettings, people: People, teacher: Teacher
) -> StoreEstimate:
    """Estimate from the figures of typical stores, which give no time."""
    dimensions = expected_dimensions(config, people, teacher)
    cells = math.prod(dimensions.view_shape)
    per_view = TYPICAL_BITS_PER_CELL[config.profile] * cells / 8
    more = _typical_optional(dimensions, teacher.input_size_hw)
    specs = array_specs(dimensions, "teacher")
    documents = sum(len(canonical_json(spec.metadata())) for spec in specs.values())
    size = _num_bytes(dimensions, specs, per_view + sum(more.values()))
    return StoreEstimate(dimensions, size + documents, more, None)


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
    slots = count_slots(
        dimensions.num_instances,
        dimensions.num_views,
        dimensions.rows_per_shard,
        teacher.settings.batch_size,
    )
    seconds = (
        fixed_seconds
        + len(np.unique(people.image_index)) * trial.seconds_per_image_digest
        + dimensions.num_instances * trial.seconds_per_person_drawn
        + slots * trial.seconds / trial.num_slots
    )
    return StoreEstimate(dimensions, size + trial.document_bytes, more, seconds)


def _typical_optional(dimensions: StoreDimensions, size_hw: SizeHW) -> dict[str, float]:
    """Return the bytes of one view's crop and tokens, by array."""
    shapes = dimensions.optional.token_shapes(dimensions.num_keypoints)
    found = {name: math.prod(shape) * TYPICAL_TOKEN_BITS / 8 for name, shape in shapes.items()}
    if dimensions.optional.crops is not None:
        found["crops"] = math.prod(size_hw) * TYPICAL_CROP_BITS_PER_PIXEL / 8
    return found


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
