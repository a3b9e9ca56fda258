"""What an identity implies: every size of a store, and the metadata of its groups.

Whoever reads a store without the pipeline starts here, as the pipeline itself does.
"""

from typing import Any

from store_schemas.array_spec import group_metadata
from store_schemas.errors import SchemaError
from store_schemas.metadata import take_int, take_object, take_size_hw
from store_schemas.names import MAX_NAME_BYTES
from store_schemas.optional_arrays import optional_of
from store_schemas.profiles import profile_of
from store_schemas.teacher_store import SCHEMA, StoreDimensions, teacher_attributes

MAX_KEYPOINTS = 1024


def dimensions_of(identity: dict[str, Any]) -> StoreDimensions:
    """Return the sizes that an identity implies, checked and bounded.

    Raises:
        SchemaError: the schema is not this program's, or a size is missing or out of bounds.
    """
    schema = identity.get("schema")
    if schema != SCHEMA:
        raise SchemaError(
            f"the store must have schema {SCHEMA!r}, got {schema!r}; read it with the version of "
            f"distil that wrote it, or write it again"
        )
    people = take_object(identity, "people", "identity")
    views = take_object(identity, "views", "identity")
    codec = take_object(identity, "codec", "identity")
    dimensions = StoreDimensions(
        num_instances=take_int(people, "num_instances", "identity.people"),
        num_images=take_int(people, "num_images", "identity.people"),
        num_ignored=take_int(people, "num_ignored", "identity.people"),
        name_length=take_int(people, "name_length", "identity.people"),
        num_views=take_int(views, "num_views", "identity.views"),
        num_keypoints=len(_keypoint_names(people)),
        heatmap_size_hw=take_size_hw(codec, "heatmap_size_hw", "identity.codec"),
        rows_per_shard=take_int(codec, "rows_per_shard", "identity.codec"),
        profile=profile_of(codec),
        optional=optional_of(identity),
    )
    take_size_hw(views, "input_size_hw", "identity.views")
    if type(views.get("seed")) is not int:
        raise SchemaError(f"identity.views: 'seed' must be whole, got {views.get('seed')!r}")
    if dimensions.name_length > MAX_NAME_BYTES:
        raise SchemaError(f"identity.people: 'name_length' must be at most {MAX_NAME_BYTES}")
    if type(codec.get("threshold")) not in (int, float) or not codec["threshold"] >= 0:
        raise SchemaError("identity.codec: 'threshold' must be a number of at least 0")
    return dimensions


def group_documents(identity: dict[str, Any], teacher: str) -> dict[str, dict[str, Any]]:
    """Return the ``zarr.json`` of every group but the root and the manifest, by path."""
    people, views = identity["people"], identity["views"]
    people_attributes = {field: people.get(field) for field in ("skeleton", "category_id")}
    views_attributes = {field: views.get(field) for field in ("recipe", "seed", "input_size_hw")}
    return {
        "people": group_metadata(people_attributes),
        "views": group_metadata(views_attributes),
        "teachers": group_metadata(),
        f"teachers/{teacher}": group_metadata(teacher_attributes()),
    }


def _keypoint_names(people: dict[str, Any]) -> list[str]:
    names = take_object(people, "skeleton", "identity.people").get("keypoint_names")
    if (
        not isinstance(names, list)
        or not 0 < len(names) <= MAX_KEYPOINTS
        or not all(isinstance(name, str) for name in names)
    ):
        raise SchemaError(f"skeleton: 'keypoint_names' must be 1 to {MAX_KEYPOINTS} names")
    return list(names)
