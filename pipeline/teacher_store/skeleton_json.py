"""A skeleton as an identity keeps it, every index checked on the way back."""

from typing import Any

from pipeline.coco.people import Skeleton
from store_schemas.errors import SchemaError
from store_schemas.metadata import take_object


def skeleton_of(identity: dict[str, Any]) -> Skeleton:
    """Return the skeleton of an identity, every index checked.

    Raises:
        SchemaError: a field is missing, of another type, or points outside the keypoints.
    """
    people = take_object(identity, "people", "identity")
    found = take_object(people, "skeleton", "identity.people")
    names = _list(found, "keypoint_names")
    if not names or len(names) > 1024 or not all(isinstance(name, str) for name in names):
        raise SchemaError("skeleton: 'keypoint_names' must be 1 to 1024 names")
    sigmas = _list(found, "sigmas")
    if not all(type(sigma) in (int, float) for sigma in sigmas):
        raise SchemaError("skeleton: 'sigmas' must be numbers")
    edges = _list(found, "edges")
    if not all(isinstance(edge, list) and len(edge) == 2 for edge in edges):
        raise SchemaError("skeleton: 'edges' must be pairs of keypoints")
    flip_indices = _indices(_list(found, "flip_indices"), len(names))
    if sorted(flip_indices) != list(range(len(names))):
        raise SchemaError("skeleton: 'flip_indices' must name every keypoint once")
    return Skeleton(
        keypoint_names=tuple(names),
        edges=tuple((a, b) for a, b in (_indices(edge, len(names)) for edge in edges)),
        flip_indices=flip_indices,
        sigmas=tuple(float(sigma) for sigma in sigmas),
        upper_body=_indices(_list(found, "upper_body"), len(names)),
        lower_body=_indices(_list(found, "lower_body"), len(names)),
    )


def skeleton_json(skeleton: Skeleton) -> dict[str, Any]:
    """Return a skeleton as an identity keeps it."""
    return {
        "keypoint_names": list(skeleton.keypoint_names),
        "edges": [[int(a), int(b)] for a, b in skeleton.edges],
        "flip_indices": [int(index) for index in skeleton.flip_indices],
        "sigmas": [float(sigma) for sigma in skeleton.sigmas],
        "upper_body": [int(index) for index in skeleton.upper_body],
        "lower_body": [int(index) for index in skeleton.lower_body],
    }


def _list(found: dict[str, Any], field: str) -> list[Any]:
    value = found.get(field)
    if not isinstance(value, list):
        raise SchemaError(f"skeleton: '{field}' must be a list, got {value!r}")
    return value


def _indices(values: list[Any], num_keypoints: int) -> tuple[int, ...]:
    if not all(type(value) is int and 0 <= value < num_keypoints for value in values):
        raise SchemaError(f"skeleton: indices must be in 0..{num_keypoints - 1}, got {values}")
    return tuple(values)
