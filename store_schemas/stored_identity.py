"""Identity of a teacher's part of a store, as records: teacher, people, views, codec, options.

The JSON of an identity is parsed once, when the store is opened: every value in bounds, and no
field that these records do not hold. All sizes of a store follow from it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from store_schemas.errors import SchemaError
from store_schemas.formats import (
    NONE,
    HeatmapProfile,
    OptionalArrays,
    StoreProfile,
    profile_from_json,
)
from store_schemas.metadata import (
    check_metadata,
    fingerprint,
    take_digest,
    take_int,
    take_object,
    take_size_hw,
)
from store_schemas.people import MAX_NAME_BYTES, Skeleton
from store_schemas.teacher_store import SCHEMA, StoreDimensions


@dataclass(frozen=True)
class PeopleIdentity:
    """Section ``people``: sizes, skeleton, and the sha256 of every array."""

    num_instances: int
    num_images: int
    num_ignored: int
    name_length: int
    """Bytes of the longest image name."""
    category_id: int
    skeleton: Skeleton
    arrays: dict[str, str]
    """``array_sha256`` of each array of the group ``people``, ``image_sha256`` excluded."""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "skeleton": self.skeleton.to_json()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Parse the section, or raise SchemaError."""
        where = "identity.people"
        section = cls(
            num_instances=take_int(found, "num_instances", where),
            num_images=take_int(found, "num_images", where),
            num_ignored=take_int(found, "num_ignored", where),
            name_length=take_int(found, "name_length", where),
            category_id=take_int(found, "category_id", where),
            skeleton=Skeleton.from_json(take_object(found, "skeleton", where)),
            arrays=_digests(found, where),
        )
        if section.name_length > MAX_NAME_BYTES:
            raise SchemaError(f"{where}: 'name_length' must be at most {MAX_NAME_BYTES}")
        return section


@dataclass(frozen=True)
class ViewsIdentity:
    """Section ``views``: how the views were drawn, and the sha256 of every array."""

    num_views: int
    """V, view 0 included."""
    input_size_hw: tuple[int, int]
    """Size of the crop that the affines lead to."""
    seed: int
    recipe: dict[str, Any]
    """Settings under which the views were drawn."""
    arrays: dict[str, str]
    """``array_sha256`` of each array of the group ``views``."""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "input_size_hw": list(self.input_size_hw)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Parse the section, or raise SchemaError."""
        where, seed = "identity.views", found.get("seed")
        if type(seed) is not int:
            raise SchemaError(f"{where}: 'seed' must be whole, got {seed!r}")
        return cls(
            num_views=take_int(found, "num_views", where),
            input_size_hw=take_size_hw(found, "input_size_hw", where),
            seed=seed,
            recipe=take_object(found, "recipe", where),
            arrays=_digests(found, where),
        )


@dataclass(frozen=True)
class CodecIdentity:
    """Section ``codec``: how heatmaps are stored, or keypoints and confidences alone."""

    profile: StoreProfile
    heatmap_size_hw: tuple[int, int]
    """Size of the teacher's heatmaps, stored or not."""
    threshold: float
    """Largest error of heat far from a map's peak; 0 where no heatmaps are stored."""
    rows_per_shard: int

    def to_json(self) -> dict[str, Any]:
        has_heatmaps = isinstance(self.profile, HeatmapProfile)
        return {
            **self.profile.to_json(),
            "heatmap_size_hw": list(self.heatmap_size_hw),
            **({"threshold": self.threshold} if has_heatmaps else {}),
            "rows_per_shard": self.rows_per_shard,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Parse the section, or raise SchemaError."""
        where, profile = "identity.codec", profile_from_json(found)
        threshold = found.get("threshold") if isinstance(profile, HeatmapProfile) else 0.0
        if type(threshold) is not float or not threshold >= 0:
            raise SchemaError(f"{where}: 'threshold' must be a number of at least 0")
        return cls(
            profile=profile,
            heatmap_size_hw=take_size_hw(found, "heatmap_size_hw", where),
            threshold=threshold,
            rows_per_shard=take_int(found, "rows_per_shard", where),
        )


@dataclass(frozen=True)
class StoreIdentity:
    """Everything that the bytes of a teacher's part of a store were made from."""

    teacher: dict[str, Any]
    """Weights and settings of the teacher, JSON."""
    people: PeopleIdentity
    views: ViewsIdentity
    codec: CodecIdentity
    optional: OptionalArrays = NONE

    @cached_property
    def dimensions(self) -> StoreDimensions:
        """Every size that the shapes of the store follow from."""
        return StoreDimensions(
            num_instances=self.people.num_instances,
            num_images=self.people.num_images,
            num_ignored=self.people.num_ignored,
            name_length=self.people.name_length,
            num_views=self.views.num_views,
            num_keypoints=self.people.skeleton.num_keypoints,
            heatmap_size_hw=self.codec.heatmap_size_hw,
            rows_per_shard=self.codec.rows_per_shard,
            profile=self.codec.profile,
            optional=self.optional,
        )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the identity's canonical JSON, in hexadecimal."""
        return fingerprint(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the identity as the root's metadata keep it."""
        return {
            **self.shared_json(),
            "teacher": self.teacher,
            "codec": self.codec.to_json(),
            **self.optional.to_json(),
        }

    def shared_json(self) -> dict[str, Any]:
        """Return the sections that all teachers of a store share."""
        return {"schema": SCHEMA, "people": self.people.to_json(), "views": self.views.to_json()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Parse an identity, each value in bounds, and check its sizes.

        Raises:
            SchemaError: the schema is not this program's, or a field is missing, unknown or out of
                bounds.
        """
        if found.get("schema") != SCHEMA:
            raise SchemaError(
                f"the store must have schema {SCHEMA!r}, got {found.get('schema')!r}; read it with "
                f"the version of distil that wrote it, or write it again"
            )
        views = ViewsIdentity.from_json(take_object(found, "views", "identity"))
        identity = cls(
            teacher=take_object(found, "teacher", "identity"),
            people=PeopleIdentity.from_json(take_object(found, "people", "identity")),
            views=views,
            codec=CodecIdentity.from_json(take_object(found, "codec", "identity")),
            optional=OptionalArrays.from_json(found, views.input_size_hw),
        )
        check_metadata(found, identity.to_json(), "identity")
        _ = identity.dimensions  # raises if the sizes contradict each other
        return identity


def _digests(found: dict[str, Any], where: str) -> dict[str, str]:
    digests = take_object(found, "arrays", where)
    return {name: take_digest(digests, name, f"{where}.arrays") for name in digests}
