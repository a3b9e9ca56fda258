"""Let another teacher join a store: it sees the very people and views that the others saw.

A store's people and views are fixed by its first plan and shared by all of its teachers; what an
added one brings is its own group, identity and completion. The root's ``zarr.json`` is rewritten
last, so that a kill at any time leaves the other teachers as they were.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.storage.folder import StoreFolder
from pipeline.storage.lease import require_lease
from pipeline.teacher_store.entries import compare_given, new_entry
from pipeline.teacher_store.layout import layout_of
from pipeline.teacher_store.opening import StoredPlan, read_entries, read_plan
from pipeline.teacher_store.people_comparison import compare_people
from pipeline.teacher_store.plan import ViewPlan, codec_identity, views_identity
from pipeline.teacher_store.publishing import publish_added_plan
from pipeline.teacher_store.recovery import require_same_images
from pipeline.teacher_store.writer import TeacherStoreWriter
from store_schemas.errors import StoreError
from store_schemas.identity import compare_identity
from store_schemas.optional_arrays import NONE, OptionalArrays
from store_schemas.profiles import DEFAULT_PROFILE, PROFILES, HeatmapProfile
from store_schemas.teacher_store import SHARED_SECTIONS, default_rows_per_shard

GROWING = "a store's views are fixed when it is begun: give as many --views, or write another store"
WAY_OUT = "the teachers of a store share their views: give the same, or write another store"


def read_shared_plan(folder: StoreFolder) -> tuple[dict[str, Any], StoredPlan]:
    """Return what the teachers of a store share: the identity's sections, people and views.

    Raises:
        StoreError: there is no store, or people or views are damaged.
    """
    name, entry = next(iter(read_entries(folder).items()))
    plan = read_plan(layout_of(folder, name, entry.identity), entry.identity)
    return {section: entry.identity[section] for section in SHARED_SECTIONS}, plan


def compare_views(
    stored: Mapping[str, Any], now: Mapping[str, Any], way_out: str = WAY_OUT
) -> None:
    """Refuse views that are not those of a store.

    Args:
        stored: The identity's section ``views``.
        now: The fields of it that are given: ``num_views`` (V), ``input_size_hw``, ``seed``,
            ``recipe``.

    Raises:
        IdentityError: names the field, both values and the way out.
    """
    ours, theirs = {"views": dict(stored)}, {"views": {**stored, **now}}
    compare_identity(ours, theirs, ["views.num_views"], GROWING)
    compare_identity(ours, theirs, way_out=way_out)


def add_teacher(
    folder: StoreFolder,
    run_id: str,
    people: People,
    image_sha256: NDArray[np.uint8],
    views: ViewPlan,
    teacher_name: str,
    identity: Mapping[str, Any],
    recipe: Mapping[str, Any],
    provenance: Mapping[str, Any],
    heatmap_size_hw: tuple[int, int],
    threshold: float,
    profile: HeatmapProfile = PROFILES[DEFAULT_PROFILE],
    rows_per_shard: int | None = None,
    optional: OptionalArrays = NONE,
) -> TeacherStoreWriter:
    """Write the plan of one more teacher of a store, complete or not.

    Args:
        run_id: The run that holds the lease of the folder.
        people: Must be the store's, field by field, as must ``image_sha256`` (M, 32) uint8 and
            ``views``.
        identity: What the teacher is; the rest as for ``TeacherStoreWriter.create``.

    Raises:
        IdentityError: people, images or views are not the store's; names the field.
        StoreError: the store has a teacher of this name, or something lies at its path.
    """
    entries = read_entries(folder)
    if teacher_name in entries:
        raise StoreError(
            f"{folder} has a teacher {teacher_name!r}; use --resume, or choose another "
            f"--teacher-name"
        )
    shared, plan = read_shared_plan(folder)
    compare_people(plan.people, people)
    compare_views(shared["views"], views_identity(views))
    num_views, num_keypoints = shared["views"]["num_views"], people.skeleton.num_keypoints
    view_bytes = num_keypoints * heatmap_size_hw[0] * heatmap_size_hw[1] * profile.bytes_per_cell
    view_bytes = max(view_bytes, optional.view_bytes(num_keypoints))
    rows = rows_per_shard or default_rows_per_shard(num_views, view_bytes)
    codec = codec_identity(profile, heatmap_size_hw, threshold, rows)
    planned = {**shared, "codec": codec, **optional.to_json()}
    whole = {**identity, **planned}
    compare_given(whole, identity, "leave it to the store, or give what its teachers share")
    entry = new_entry(teacher_name, whole, recipe, provenance)
    layout = layout_of(folder, teacher_name, entry.identity)
    require_same_images(layout, plan, image_sha256, ())
    require_lease(folder, run_id)
    publish_added_plan(layout, entry, entries)
    return TeacherStoreWriter(layout, entry, run_id)
