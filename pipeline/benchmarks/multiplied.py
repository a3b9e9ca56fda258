"""A store of any number of views whose shards are hard links to those of a real one.

Its people, views and manifest are valid: it is opened and read like any other store, and takes the
disk space of the real one. Only whole shards are repeated.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.errors import DistilError
from pipeline.storage.files import make_folder
from pipeline.storage.folder import LocalFolder
from pipeline.teacher_store.opening import StoreLayout, layout_of, read_plan
from pipeline.teacher_store.plan import people_identity, plan_arrays, views_identity
from pipeline.teacher_store.publishing import publish_manifest, publish_plan, publish_root
from pipeline.wording import counted
from store_schemas.manifest import MANIFEST_ARRAYS, Manifest, read_manifest
from store_schemas.root_metadata import read_entry


def multiply_store(source: Path, target: Path, num_views: int) -> None:
    """Write a complete store of about ``num_views`` views, at least one shard.

    Raises:
        DistilError: the source has no whole shard, or lies on another file system.
        StoreError: the source cannot be read, or something else is at the target.
    """
    folder = LocalFolder(source)
    entry = read_entry(folder, None)
    layout = layout_of(folder, entry)
    plan, manifest = read_plan(layout), read_manifest(layout, entry)
    size = layout.dimensions
    num_whole = size.num_instances // size.rows_per_shard
    if not num_whole:
        raise DistilError(
            f"{source} must have at least one whole shard of {size.rows_per_shard} people, got "
            f"{counted(size.num_instances, 'person')}; cache more people"
        )
    num_shards = max(1, round(num_views / (size.rows_per_shard * size.num_views)))
    shards = np.arange(num_shards) % num_whole
    rows = (shards[:, None] * size.rows_per_shard + np.arange(size.rows_per_shard)).ravel()
    people = _people_of_rows(plan.people, rows)
    views = replace(
        plan.views,
        image_to_crop=plan.views.image_to_crop[rows],
        is_mirrored=plan.views.is_mirrored[rows],
    )
    identity = replace(entry.identity, people=people_identity(people), views=views_identity(views))
    copied = replace(entry, identity=identity, content_sha256=None)
    repeated = layout_of(LocalFolder(target), copied)
    publish_plan(repeated, copied, {}, plan_arrays(people, plan.image_sha256, views))
    _link_shards(layout, repeated, source, target, shards.tolist())
    columns = {name: getattr(manifest, name)[shards] for name in MANIFEST_ARRAYS}
    starts = np.arange(num_shards) * size.rows_per_shard
    columns["rows"] = np.stack([starts, starts + size.rows_per_shard], axis=1)
    whole = Manifest(np.ones(num_shards, np.bool_), **columns)
    publish_manifest(repeated, whole)
    publish_root(
        repeated.folder, {entry.teacher: replace(copied, content_sha256=whole.content_sha256)}
    )


def _people_of_rows(people: People, rows: NDArray[np.int64]) -> People:
    return replace(
        people,
        instance_id=np.arange(len(rows)),  # unique: a row may stand here several times
        image_index=people.image_index[rows],
        bbox_xywh=people.bbox_xywh[rows],
        area=people.area[rows],
        keypoints=people.keypoints[rows],
    )


def _link_shards(
    layout: StoreLayout, repeated: StoreLayout, source: Path, target: Path, shards: list[int]
) -> None:
    for spec in repeated.shard_specs.values():
        make_folder(target / spec.path)
    for place, shard in enumerate(shards):
        there, here = layout.shard_files(shard), repeated.shard_files(place)
        for name, file in here.items():
            try:
                os.link(source / there[name], target / file)
            except OSError as error:
                raise DistilError(
                    f"{source / there[name]} must be linked to {target / file}, got: "
                    f"{error.strerror}; give an --output on the store's file system"
                ) from error
