"""The skeleton that all people of a store share, as an identity keeps it."""

from dataclasses import dataclass
from typing import Any, Self

from store_schemas.errors import SchemaError

MAX_KEYPOINTS = 1024


@dataclass(frozen=True)
class Skeleton:
    """The K keypoints of a category; indices count from 0."""

    keypoint_names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    """Pairs of keypoints that a picture joins by a line."""
    flip_indices: tuple[int, ...]
    """Keypoint k of a mirrored person is keypoint ``flip_indices[k]`` of the person."""
    sigmas: tuple[float, ...]
    """OKS fall-off per keypoint, as in pycocotools ``Params.kpt_oks_sigmas``; empty: unknown."""
    upper_body: tuple[int, ...] = ()
    """Keypoints that a half-body view may keep; both halves empty: no half-body views."""
    lower_body: tuple[int, ...] = ()

    @property
    def num_keypoints(self) -> int:
        return len(self.keypoint_names)

    def to_json(self) -> dict[str, Any]:
        """Return the skeleton as an identity keeps it."""
        return {
            "keypoint_names": list(self.keypoint_names),
            "edges": [[int(a), int(b)] for a, b in self.edges],
            "flip_indices": [int(index) for index in self.flip_indices],
            "sigmas": [float(sigma) for sigma in self.sigmas],
            "upper_body": [int(index) for index in self.upper_body],
            "lower_body": [int(index) for index in self.lower_body],
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Return the skeleton of an identity, every index checked.

        Raises:
            SchemaError: a field is missing, of another type, or points outside the keypoints.
        """
        names = _list(found, "keypoint_names")
        if not 0 < len(names) <= MAX_KEYPOINTS or not all(isinstance(n, str) for n in names):
            raise SchemaError(f"skeleton: 'keypoint_names' must be 1 to {MAX_KEYPOINTS} names")
        sigmas = _list(found, "sigmas")
        if not all(type(sigma) in (int, float) for sigma in sigmas):
            raise SchemaError("skeleton: 'sigmas' must be numbers")
        edges = _list(found, "edges")
        if not all(isinstance(edge, list) and len(edge) == 2 for edge in edges):
            raise SchemaError("skeleton: 'edges' must be pairs of keypoints")
        flip_indices = _indices(_list(found, "flip_indices"), len(names))
        if sorted(flip_indices) != list(range(len(names))):
            raise SchemaError("skeleton: 'flip_indices' must name every keypoint once")
        return cls(
            keypoint_names=tuple(names),
            edges=tuple((a, b) for a, b in (_indices(edge, len(names)) for edge in edges)),
            flip_indices=flip_indices,
            sigmas=tuple(float(sigma) for sigma in sigmas),
            upper_body=_indices(_list(found, "upper_body"), len(names)),
            lower_body=_indices(_list(found, "lower_body"), len(names)),
        )


def _list(found: dict[str, Any], field: str) -> list[Any]:
    value = found.get(field)
    if not isinstance(value, list):
        raise SchemaError(f"skeleton: '{field}' must be a list, got {value!r}")
    return value


def _indices(values: list[Any], num_keypoints: int) -> tuple[int, ...]:
    if not all(type(value) is int and 0 <= value < num_keypoints for value in values):
        raise SchemaError(f"skeleton: indices must be in 0..{num_keypoints - 1}, got {values}")
    return tuple(values)
