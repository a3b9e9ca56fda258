"""Small synthetic people for the tests that evaluate poses."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pipeline.coco.people import IgnoreRegions, People, Skeleton

PeopleMaker = Callable[..., People]


@pytest.fixture(scope="session")
def make_people() -> PeopleMaker:
    return _make_people


def _make_people(
    image_indices: Sequence[int] = (0, 0, 1),
    *,
    num_images: int = 3,
    sigmas: Sequence[float] = (0.05, 0.06, 0.07, 0.08, 0.09),
    num_keypoints: int = 5,
    ignored_boxes: Sequence[tuple[int, float, float, float, float]] = (),
    seed: int = 0,
) -> People:
    """Scatter labelled people over images; image ids are 10, 20, ..., annotation ids 100, 101, ...

    ignored_boxes: crowds as (image index, x, y, w, h).
    """
    generator = np.random.default_rng(seed)
    n = len(image_indices)
    size = generator.uniform(60, 150, (n, 2))
    # People of one image stand far apart.
    corner = generator.uniform(0, 20, (n, 2)) + 300.0 * np.arange(n)[:, None]
    keypoints = np.full((n, num_keypoints, 3), 2, dtype=np.float32)
    keypoints[..., :2] = corner[:, None] + generator.random((n, num_keypoints, 2)) * size[:, None]
    keypoints[::2, 0] = (np.nan, np.nan, 0)
    regions = np.array(ignored_boxes, dtype=np.float64).reshape(-1, 5)
    return People(
        skeleton=Skeleton(
            keypoint_names=tuple(f"keypoint_{k}" for k in range(num_keypoints)),
            edges=((0, 1),),
            flip_indices=tuple(range(num_keypoints)),
            sigmas=tuple(sigmas),
        ),
        category_id=7,
        image_id=10 * np.arange(1, num_images + 1),
        image_name=tuple(f"{i}.jpg" for i in range(num_images)),
        image_size_hw=np.full((num_images, 2), 2000),
        instance_id=100 + np.arange(n),
        image_index=np.array(image_indices, dtype=np.int64),
        bbox_xywh=np.concatenate([corner, size], axis=1),
        area=size.prod(axis=1) * 0.5,
        keypoints=keypoints,
        ignored=IgnoreRegions(
            annotation_id=900 + np.arange(len(regions)),
            image_index=regions[:, 0].astype(np.int64),
            bbox_xywh=regions[:, 1:],
            area=regions[:, 3] * regions[:, 4],
            is_crowd=np.ones(len(regions), dtype=np.bool_),
            num_keypoints=np.zeros(len(regions), dtype=np.int64),
        ),
    )
