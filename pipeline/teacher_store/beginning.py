"""Begin a teacher's part of a store: of a new store, or beside the teachers that a store has.

A store's people and views are fixed by its first plan and shared by all of its teachers; an added
one brings its own group, identity and completion. The root's ``zarr.json`` is written last, so that
a kill at any time leaves the other teachers as they were.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.storage.folder import StoreFolder
from pipeline.storage.lease import require_lease
from pipeline.teacher_store.opening import StoredPlan, layout_of, read_plan
from pipeline.teacher_store.people_comparison import compare_people
from pipeline.teacher_store.plan import ViewPlan, people_identity, plan_arrays, views_identity
from pipeline.teacher_store.publishing import publish_plan
from pipeline.teacher_store.recovery import require_same_images
from pipeline.teacher_store.writer import TeacherStoreWriter
from store_schemas.errors import StoreError
from store_schemas.identity import canonical_json, compare_identity
from store_schemas.metadata import parse_json
from store_schemas.optional_arrays import NONE, OptionalArrays
from store_schemas.profiles import DEFAULT_PROFILE, PROFILES, HeatmapProfile
from store_schemas.root_metadata import TeacherEntry, read_entries, root_document
from store_schemas.stored_identity import CodecIdentity, StoreIdentity, ViewsIdentity
from store_schemas.teacher_store import default_rows_per_shard

GROWING = "a store's views are fixed when it is begun: give as many --views, or write another store"
WAY_OUT = "the teachers of a store share their views: give the same, or write another store"


@dataclass(frozen=True, kw_only=True)
class NewTeacher:
    """A teacher that has no part of the store yet, and how its outputs will be stored."""

    name: str
    identity: Mapping[str, Any]
    """Weights and settings of the teacher, JSON."""
    recipe: Mapping[str, Any]
    """Settings of its execution; a resumption under others is refused unless it is allowed."""
    provenance: Mapping[str, Any]
    """Versions, hardware, paths: recorded, never compared."""
    heatmap_size_hw: tuple[int, int]
    threshold: float
    """Largest error of heat far from a map's peak."""
    profile: HeatmapProfile = PROFILES[DEFAULT_PROFILE]
    rows_per_shard: int | None = None
    """People per shard; None: about a thousand views."""
    optional: OptionalArrays = NONE
    """Formats of the crops and tokens to store."""

    def codec(self, num_views: int, num_keypoints: int) -> CodecIdentity:
        """Return the identity's section ``codec``."""
        cells = num_keypoints * self.heatmap_size_hw[0] * self.heatmap_size_hw[1]
        view_bytes = cells * self.profile.bytes_per_cell
        view_bytes = max(view_bytes, self.optional.view_bytes(num_keypoints))
        return CodecIdentity(
            profile=self.profile,
            heatmap_size_hw=self.heatmap_size_hw,
            threshold=float(self.threshold),
            rows_per_shard=self.rows_per_shard or default_rows_per_shard(num_views, view_bytes),
        )


def begin_teacher(
    folder: StoreFolder,
    run_id: str,
    people: People,
    image_sha256: NDArray[np.uint8],
    views: ViewPlan,
    teacher: NewTeacher,
) -> TeacherStoreWriter:
    """Write the plan of a teacher, in a new store or in one that other teachers have begun.

    Args:
        run_id: The run that holds the lease of the folder.
        people: People of the store; in a store with other teachers they must be the same, field by
            field, as must ``image_sha256`` and ``views``.
        image_sha256: (M, 32) uint8, digest of every image file.

    Raises:
        StoreError: the store has a teacher of this name, or something else is at the path already.
        SchemaError: people or views contradict themselves.
        IdentityError: people, images or views are not the store's; names the field.
    """
    others = read_entries(folder) if folder.size("zarr.json") is not None else {}
    if teacher.name in others:
        raise StoreError(
            f"{folder} has a teacher {teacher.name!r}; use --resume, or choose another path or "
            f"--teacher-name"
        )
    stored = None
    if others:
        shared, stored = read_shared_plan(folder)
        compare_people(stored.people, people)
        compare_views(shared.views, views_identity(views).to_json())
        sections = (shared.people, shared.views)
    else:
        sections = (people_identity(people), views_identity(views))
    codec = teacher.codec(sections[1].num_views, people.skeleton.num_keypoints)
    identity = StoreIdentity(dict(teacher.identity), *sections, codec, teacher.optional)
    entry = _new_entry(teacher, identity)
    layout = layout_of(folder, entry)
    if stored is not None:
        require_same_images(layout, stored, image_sha256, ())
    arrays = {} if others else plan_arrays(people, image_sha256, views)
    require_lease(folder, run_id)
    publish_plan(layout, entry, others, arrays)
    return TeacherStoreWriter(layout, entry, run_id)


def read_shared_plan(folder: StoreFolder) -> tuple[StoreIdentity, StoredPlan]:
    """Return the plan that the teachers of a store share, and the identity of one of them.

    Raises:
        StoreError: there is no store, or people or views are damaged.
    """
    entry = next(iter(read_entries(folder).values()))
    return entry.identity, read_plan(layout_of(folder, entry))


def compare_views(stored: ViewsIdentity, now: Mapping[str, Any], way_out: str = WAY_OUT) -> None:
    """Refuse views that are not those of a store.

    Args:
        stored: The identity's section ``views``.
        now: The given ones of its fields: ``num_views`` (V), ``input_size_hw``, ``seed``,
            ``recipe``, ``arrays``.

    Raises:
        IdentityError: names the field, both values and the way out.
    """
    ours, theirs = {"views": stored.to_json()}, {"views": {**stored.to_json(), **now}}
    compare_identity(ours, theirs, ["views.num_views"], GROWING)
    compare_identity(ours, theirs, way_out=way_out)


def _new_entry(teacher: NewTeacher, identity: StoreIdentity) -> TeacherEntry:
    """Return the entry of a teacher whose part is incomplete, exactly as it will be read back.

    Raises:
        SchemaError: the metadata are too large or too deep, or a size is out of bounds.
    """
    recipe, provenance = dict(teacher.recipe), dict(teacher.provenance)
    entry = TeacherEntry(teacher.name, identity, recipe, provenance, content_sha256=None)
    document = parse_json(canonical_json(root_document({teacher.name: entry})), "zarr.json")
    return TeacherEntry.from_json(teacher.name, document["attributes"]["teachers"][teacher.name])
