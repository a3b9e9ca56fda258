"""What a store will take: bytes of every file, and seconds, from a trial or from stores before."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.caching.inputs import optional_arrays
from pipeline.caching.settings import CacheSettings
from pipeline.caching.trial import Trial, count_slots
from pipeline.coco.people import People
from pipeline.frames.geometry import SizeHW
from pipeline.teachers import Teacher
from store_schemas.array_spec import ArraySpec
from store_schemas.chunks import plain_chunk_bytes, shard_index_bytes
from store_schemas.identity import canonical_json
from store_schemas.names import pack_names
from store_schemas.profiles import profile_named
from store_schemas.teacher_store import StoreDimensions, array_specs, default_rows_per_shard

GUESSED_BITS_PER_CELL = {"default": 0.78, "small": 0.51, "fast": 0.77, "lossless-float16": 11.2}
"""By profile, of heatmaps as they lie on disk: what stores of real people took, rounded up."""
GUESSED_CROP_BITS_PER_PIXEL = 2.4
"""Of JPEG of the default quality; what crops of 256 x 192 of real people took, rounded up."""
GUESSED_TOKEN_BITS = 16.2
"""Of float16, which lz4 cannot shorten; what the demo's teacher took, rounded up."""


@dataclass(frozen=True)
class Cost:
    """What stage one will leave and take."""

    dimensions: StoreDimensions
    num_bytes: float
    """Of every file of the finished store."""
    optional_bytes_per_view: Mapping[str, float]
    """Of crops and tokens, by array."""
    seconds: float | None
    """Of wall time on this machine; None: not measured."""

    @property
    def num_views(self) -> int:
        return self.dimensions.num_instances * self.dimensions.num_views


def planned_dimensions(config: CacheSettings, people: People, teacher: Teacher) -> StoreDimensions:
    """Return the sizes that the store will have."""
    num_views, profile = config.views + 1, profile_named(config.profile)
    optional = optional_arrays(config, teacher)
    cells = teacher.num_keypoints * math.prod(teacher.heatmap_size_hw)
    return StoreDimensions(
        num_instances=people.num_instances,
        num_images=len(people.image_id),
        num_ignored=len(people.ignored.annotation_id),
        name_length=pack_names(people.image_name).shape[1],
        num_views=num_views,
        num_keypoints=teacher.num_keypoints,
        heatmap_size_hw=teacher.heatmap_size_hw,
        rows_per_shard=default_rows_per_shard(
            num_views,
            max(cells * profile.bytes_per_cell, optional.view_bytes(teacher.num_keypoints)),
        ),
        profile=profile,
        optional=optional,
    )


def guess_cost(config: CacheSettings, people: People, teacher: Teacher) -> Cost:
    """Return the cost by what other stores took; its time is unknown."""
    dimensions = planned_dimensions(config, people, teacher)
    cells = math.prod(dimensions.view_shape)
    per_view = GUESSED_BITS_PER_CELL[config.profile] * cells / 8
    more = _guess_optional(dimensions, teacher.input_size_hw)
    specs = array_specs(dimensions, "teacher")
    documents = sum(len(canonical_json(spec.metadata())) for spec in specs.values())
    size = _num_bytes(dimensions, specs, per_view + sum(more.values()))
    return Cost(dimensions, size + documents, more, None)


def predict_cost(
    config: CacheSettings, people: People, teacher: Teacher, trial: Trial, fixed_seconds: float
) -> Cost:
    """Return the cost by a trial.

    fixed_seconds: of reading the people, opening the teacher and checking it.
    """
    dimensions = planned_dimensions(config, people, teacher)
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
    return Cost(dimensions, size + trial.document_bytes, more, seconds)


def _guess_optional(dimensions: StoreDimensions, size_hw: SizeHW) -> dict[str, float]:
    """Return the bytes of one view's crop and tokens, by array."""
    shapes = dimensions.optional.token_shapes(dimensions.num_keypoints)
    found = {name: math.prod(shape) * GUESSED_TOKEN_BITS / 8 for name, shape in shapes.items()}
    if dimensions.optional.crops is not None:
        found["crops"] = math.prod(size_hw) * GUESSED_CROP_BITS_PER_PIXEL / 8
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
