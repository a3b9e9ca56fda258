"""A few drawn people, and a teacher store whose teacher knows the truth."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.coco.image_files import resolve_image
from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.drawn.people import write_drawn_people
from pipeline.frames.geometry import apply, crop_to_heatmap
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.frames.views import ViewRecipe, draw_views
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teacher_store.writer import TeacherStoreWriter
from pipeline.training.data import move_keypoints
from store_schemas.heatmap_codec import encode_heatmaps
from store_schemas.teacher_store import Status

INPUT_SIZE_HW = (256, 192)
HEATMAP_SIZE_HW = (64, 48)

StoreMaker = Callable[..., Path]


@dataclass(frozen=True)
class DrawnPeople:
    annotations: Path
    images: Path


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DrawnPeople:
    folder = tmp_path_factory.mktemp("drawn")
    return DrawnPeople(write_drawn_people(folder, num_images=6, seed=3), folder / "images")


@pytest.fixture(scope="session")
def store(drawn: DrawnPeople, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store of the drawn people with two augmented views each."""
    return write_store(drawn, tmp_path_factory.mktemp("store") / "teacher.zarr")


@pytest.fixture
def make_store(drawn: DrawnPeople, tmp_path: Path) -> StoreMaker:
    def make(**changes: object) -> Path:
        return write_store(drawn, tmp_path / "made.zarr", **changes)  # type: ignore[arg-type]

    return make


def write_store(
    drawn: DrawnPeople,
    path: Path,
    *,
    is_complete: bool = True,
    input_size_hw: tuple[int, int] = INPUT_SIZE_HW,
    failed_row: int | None = None,
) -> Path:
    """Write a store whose heatmaps are Gaussians around the truth, in the frame msra."""
    people = read_people(drawn.annotations, drawn.images, PeopleSettings())
    recipe = ViewRecipe(rotation_degrees=10.0, half_body_probability=0.0)
    views = draw_views(people, recipe, 0, 2, input_size_hw)
    digests = [
        hashlib.sha256(resolve_image(drawn.images, name).read_bytes()).digest()
        for name in people.image_name
    ]
    writer = TeacherStoreWriter.create(
        path,
        people,
        np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32).copy(),
        ViewPlan(
            views.image_to_crop,
            views.is_mirrored,
            input_size_hw,
            seed=0,
            recipe=recipe.model_dump(mode="json"),
        ),
        "truth",
        identity={"teacher": {"heatmap_frame": "msra"}},
        recipe={},
        provenance={},
        heatmap_size_hw=HEATMAP_SIZE_HW,
        threshold=0.01,
        rows_per_shard=4,
    )
    to_heatmap = crop_to_heatmap("msra", input_size_hw, HEATMAP_SIZE_HW)
    for shard in writer.pending_shards()[: None if is_complete else 1]:
        rows = writer.shard_rows(shard)
        shape = (len(rows), 3, people.skeleton.num_keypoints)
        outputs = np.ones((*shape, 4), np.float32)
        points = np.empty((*shape, 2))
        for i, row in enumerate(rows):
            whole = np.repeat(people.keypoints[row][None], 3, axis=0)
            points[i], weights = move_keypoints(
                whole, people.skeleton, views.image_to_crop[row], input_size_hw
            )
            points[i][weights == 0] = np.nan
        heat = encode_keypoints(apply(to_heatmap, points), HEATMAP_SIZE_HW)
        heatmaps, outputs[..., 0] = encode_heatmaps(heat, 0.01)
        status = np.full(shape[:2], Status.OK, np.uint8)
        if failed_row is not None and failed_row in rows:
            status[failed_row - rows.start, 1] = Status.IMAGE_UNREADABLE
        writer.write_shard(shard, heatmaps, outputs, status)
    if is_complete:
        writer.finish()
    return path
