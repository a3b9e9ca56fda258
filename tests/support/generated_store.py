"""Stores of any profile and number of views, written by the real writer in milliseconds."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import IgnoreRegions, People, Skeleton
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import acquire_lease
from pipeline.teacher_store.beginning import NewTeacher, begin_teacher
from pipeline.teacher_store.plan import ViewPlan
from store_schemas.manifest import digest_of_images
from store_schemas.optional_arrays import NONE, OptionalArrays, TokenFormat, crop_format
from store_schemas.profiles import PROFILES
from store_schemas.teacher_store import Status

N, K, SIZE_HW, ROWS_PER_SHARD = 8, 3, (16, 12), 3
"""Shards of 3, 3 and 2 people."""


CROPS = crop_format((64, 48), 90, "4:2:0")
WITH_ALL = OptionalArrays(CROPS, TokenFormat(("keypoint", "visual"), 5, (2, 4)))


def people() -> People:
    """Eight people in four images; nothing is ignored."""
    random = np.random.default_rng(0)
    keypoints = random.uniform(0, 200, (N, K, 3)).astype(np.float32)
    keypoints[..., 2] = 2
    empty = np.zeros(0, np.int64)
    return People(
        skeleton=Skeleton(("nose", "left", "right"), ((0, 1),), (0, 2, 1), (0.026, 0.1, 0.1)),
        category_id=1,
        image_id=np.arange(4),
        image_name=("a.jpg", "b.jpg", "c.jpg", "d.jpg"),
        image_size_hw=np.full((4, 2), 300),
        instance_id=np.arange(N),
        image_index=np.arange(N) // 2,
        bbox_xywh=random.uniform(1, 60, (N, 4)),
        area=random.uniform(1, 900, N),
        keypoints=keypoints,
        ignored=IgnoreRegions(
            empty, empty, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.bool_), empty
        ),
    )


def views(num_views: int) -> ViewPlan:
    """Affines of which about half mirror."""
    random = np.random.default_rng(num_views)
    image_to_crop = random.uniform(-9, 9, (N, num_views, 2, 3))
    a = image_to_crop
    is_mirrored = a[..., 0, 0] * a[..., 1, 1] - a[..., 0, 1] * a[..., 1, 0] < 0
    return ViewPlan(image_to_crop, is_mirrored, (64, 48), 7, {"padding": 1.25})


def blobs(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Maps as teachers make them: one hill, elsewhere nothing."""
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    random = np.random.default_rng(shape[0])
    centre = random.uniform(0, 12, (*shape[:-2], 2, 1, 1))
    heat = np.exp(-((x - centre[..., 0, :, :]) ** 2 + (y - centre[..., 1, :, :]) ** 2) / 8)
    return (heat * 255).round().astype(np.uint8) if dtype == "uint8" else heat.astype(np.float16)


def crops_and_tokens(rows: range, num_views: int) -> dict[str, NDArray[Any]]:
    """Return what a shard keeps beside heatmaps: files of random bytes, random tokens."""
    random = np.random.default_rng(rows.start)
    files = np.empty((len(rows), num_views), np.object_)
    for place in np.ndindex(files.shape):
        files[place] = random.integers(0, 256, int(random.integers(1, CROPS.length)), np.uint8)
    tokens = {
        name: random.normal(0, 1, (len(rows), num_views, *shape)).astype(np.float16)
        for name, shape in WITH_ALL.token_shapes(K).items()
    }
    return {"crops": files, **tokens}


def write_store(
    path: Path, profile: str, num_views: int, *, with_crops_and_tokens: bool = False
) -> None:
    """Write a whole store; two people could not be read, or their teacher gave nothing."""
    plan, folder, digests = people(), LocalFolder(path), np.zeros((4, 32), np.uint8)
    with acquire_lease(folder) as lease:
        teacher = NewTeacher(
            name="hrnet",
            identity={"sha256": "ab"},
            recipe={},
            provenance={},
            heatmap_size_hw=SIZE_HW,
            threshold=0.0 if profile == "lossless-float16" else 0.01,
            profile=PROFILES[profile],
            rows_per_shard=ROWS_PER_SHARD,
            optional=WITH_ALL if with_crops_and_tokens else NONE,
        )
        writer = begin_teacher(folder, lease.run_id, plan, digests, views(num_views), teacher)
        for shard in range(writer.num_shards):
            rows = writer.shard_rows(shard)
            shape = (len(rows), num_views, K)
            status = np.full(shape[:2], Status.OK, np.uint8)
            status[[row == 2 for row in rows]] = Status.IMAGE_UNREADABLE
            status[[row == 7 for row in rows], -1] = Status.OUTPUT_NOT_FINITE
            outputs = np.random.default_rng(shard).uniform(0, 1, (*shape, 4)).astype(np.float32)
            images = digest_of_images(digests, plan.image_index[rows.start : rows.stop])
            heatmaps = blobs((*shape, *SIZE_HW), PROFILES[profile].dtype)
            more = crops_and_tokens(rows, num_views) if with_crops_and_tokens else None
            writer.write_shard(shard, heatmaps, outputs, status, images, optional=more)
        writer.finish()
