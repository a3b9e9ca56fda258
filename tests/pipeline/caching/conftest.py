"""A few people, a teacher made of means, and writers of small stores."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.caching.shard_worker import ShardTask, ShardWorker
from pipeline.coco.image_files import sha256_file
from pipeline.coco.people import People
from pipeline.frames.views import draw_views
from pipeline.settings import HeatmapFrame, TeacherSettings, ViewRecipe
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import WriterLease, acquire_lease
from pipeline.teacher_store.plan import ViewPlan, read_plan
from pipeline.teacher_store.writer import NewTeacher, TeacherStoreWriter, begin_teacher
from pipeline.teachers import Teacher
from pipeline.teachers.network import Prediction

SIZE_HW, CELLS_HW = (32, 24), (8, 6)
NUM_KEYPOINTS, NUM_VIEWS, ROWS, BATCH = 5, 3, 2, 4
IMAGES = (0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6)
"""The image of each of eleven people: shards share images, and the last has one person."""


class Means:
    """Means over 4 x 4 pixels, mixed differently for each keypoint."""

    kind = architecture = "means"
    sha256 = "0" * 64
    input_size_hw, heatmap_size_hw = SIZE_HW, CELLS_HW
    num_keypoints = NUM_KEYPOINTS
    keypoint_names: tuple[str, ...] | None = None
    heatmap_frame: HeatmapFrame = "half-pixel"
    fixed_batch_size: int | None = None
    num_threads: int | None = None
    token_shape: tuple[int, tuple[int, int]] | None = None

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        cells = images.reshape(len(images), 3, 8, 4, 6, 4).mean(axis=(3, 5))
        mixed = np.einsum("bcij,kc->bkij", cells, np.arange(15).reshape(5, 3) / 30)
        return Prediction(mixed.astype(np.float32))

    def execution(self) -> dict[str, Any]:
        return {}


class Caching:
    """People, images and a writer of a new store in a folder."""

    def __init__(self, folder: Path, people: People) -> None:
        self.folder, self.people = folder, people
        self.teacher = Teacher(Means(), TeacherSettings(batch_size=BATCH))
        self.leases: list[WriterLease] = []
        for image, name in enumerate(people.image_name):
            pixels = np.random.default_rng(image).integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(pixels).save(self.path(name), "png")
        digests = [bytes.fromhex(sha256_file(self.path(name))) for name in people.image_name]
        self.image_sha256 = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)

    def path(self, name: str) -> Path:
        return self.folder / name

    def writer(self, name: str = "store.zarr", **changes: Any) -> TeacherStoreWriter:
        views = draw_views(self.people, ViewRecipe(), 0, NUM_VIEWS - 1, SIZE_HW)
        folder = LocalFolder(self.folder / name)
        self.leases.append(acquire_lease(folder))
        teacher = NewTeacher(
            name="means",
            identity=self.teacher.identity(),
            recipe={},
            provenance={},
            heatmap_size_hw=CELLS_HW,
            threshold=0.01,
            rows_per_shard=ROWS,
            **changes,
        )
        plan = ViewPlan(views.image_to_crop, views.is_mirrored, SIZE_HW, 0, {})
        run_id = self.leases[-1].run_id
        return begin_teacher(folder, run_id, self.people, self.image_sha256, plan, teacher)

    def worker(
        self, writer: TeacherStoreWriter, *, skip_bad: bool = False, num_threads: int = 3
    ) -> ShardWorker:
        task = ShardTask(writer, Path(), self.teacher.settings, self.folder, skip_bad)
        return ShardWorker(task, self.teacher, read_plan(writer.layout), num_threads)

    def digests(self, name: str = "store.zarr") -> dict[str, str]:
        root = self.folder / name
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*")
            if path.is_file() and path.name != "writer.json"
        }


@pytest.fixture
def caching(make_people: Any, tmp_path: Path) -> Iterator[Caching]:
    made = Caching(tmp_path, make_people(IMAGES, num_images=7))
    yield made
    for lease in made.leases:
        lease.release()
