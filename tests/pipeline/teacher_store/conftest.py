"""A small store that a test writes, damages and reads; and what a teacher says in it."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.coco.people import IgnoreRegions, People, Skeleton
from pipeline.storage.files import walk_files
from pipeline.storage.folder import open_folder
from pipeline.storage.lease import LEASE_NAME, WriterLease, acquire_lease
from pipeline.teacher_store.beginning import NewTeacher, begin_teacher
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.writer import TeacherStoreWriter
from store_schemas.manifest import ShardReceipt, digest_of_images
from store_schemas.teacher_store import Status

Shard = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]


class StoreFactory:
    """Seven people in three images, two views each, in three shards of 3, 3 and 1 people."""

    num_instances, num_views, rows_per_shard = 7, 2, 3
    skeleton = Skeleton(("nose", "left", "right"), ((0, 1), (0, 2)), (0, 2, 1), (0.026, 0.1, 0.1))
    image_sha256 = np.random.default_rng(1).integers(0, 256, (3, 32)).astype(np.uint8)
    image_index = np.array([0, 0, 0, 1, 1, 2, 2])

    def __init__(self) -> None:
        self.teacher = {"architecture": "tokenpose-s", "sha256": "ab" * 32, "frame": "msra"}
        self.identity = {"teacher": self.teacher}
        self.recipe = {"batch_size": 32, "deterministic": True}
        self._leases: dict[str, WriterLease] = {}

    def people(self) -> People:
        """Return the people, some keypoints unlabelled, and one crowd."""
        random = np.random.default_rng(0)
        keypoints = random.uniform(0, 200, (self.num_instances, 3, 3)).astype(np.float32)
        keypoints[..., 2] = random.integers(0, 3, keypoints.shape[:2])
        keypoints[keypoints[..., 2] == 0, :2] = np.nan
        return People(
            skeleton=self.skeleton,
            category_id=1,
            image_id=np.array([4, 5, 9]),
            image_name=("a.jpg", "train/bé.jpg", "c.jpg"),
            image_size_hw=np.array([[480, 640], [100, 90], [64, 64]]),
            instance_id=np.arange(100, 100 + self.num_instances),
            image_index=self.image_index.copy(),
            bbox_xywh=random.uniform(1, 60, (self.num_instances, 4)),
            area=random.uniform(1, 900, self.num_instances),
            keypoints=keypoints,
            ignored=IgnoreRegions(
                np.array([900]),
                np.array([1]),
                np.array([[1.0, 2.0, 3.0, 4.0]]),
                np.array([12.0]),
                np.array([True]),
                np.array([0]),
            ),
        )

    def views(self) -> ViewPlan:
        """Return a plain view and a mirrored one of each person."""
        shape = (self.num_instances, self.num_views)
        image_to_crop = np.random.default_rng(2).uniform(-9, 9, (*shape, 2, 3))
        image_to_crop[..., :2] = np.eye(2) * [0.5, 0.75]
        image_to_crop[:, 1, 0, 0] *= -1
        is_mirrored = np.zeros(shape, np.bool_)
        is_mirrored[:, 1] = True
        return ViewPlan(image_to_crop, is_mirrored, (32, 24), 7, {"rotation": 40.0})

    def shard(self, rows: range) -> Shard:
        """Return what a teacher says of a shard; the second view of row 4 is not finite."""
        random = np.random.default_rng(rows.start)
        heatmaps = random.integers(0, 256, (len(rows), self.num_views, 3, 8, 6)).astype(np.uint8)
        outputs = random.uniform(0, 1, (len(rows), self.num_views, 3, 4)).astype(np.float32)
        status = np.full((len(rows), self.num_views), Status.OK, np.uint8)
        if 4 in rows:
            status[4 - rows.start, 1] = Status.OUTPUT_NOT_FINITE
            outputs[4 - rows.start, 1] = np.inf
        return heatmaps, outputs, status

    def images_of(self, rows: range, image_sha256: NDArray[np.uint8] | None = None) -> str:
        """Return the digest of the images that a shard's people stand in."""
        digests = self.image_sha256 if image_sha256 is None else image_sha256
        return digest_of_images(digests, self.image_index[rows.start : rows.stop])

    def create(self, path: Path | str, **changes: Any) -> TeacherStoreWriter:
        """Begin a teacher, of a new store or of one that is there; leased until it is finished."""
        plan: dict[str, Any] = {
            "people": self.people(),
            "image_sha256": self.image_sha256,
            "views": self.views(),
        }
        teacher: dict[str, Any] = {
            "name": "hrnet",
            "identity": self.teacher,
            "recipe": self.recipe,
            "provenance": {"zarr": "3"},
            "heatmap_size_hw": (8, 6),
            "threshold": 0.01,
            "rows_per_shard": self.rows_per_shard,
        }
        plan |= {name: changes.pop(name) for name in plan.keys() & changes.keys()}
        new = NewTeacher(**(teacher | changes))
        return begin_teacher(open_folder(path), self.hold(path), **plan, teacher=new)

    def resume(self, path: Path | str, **changes: Any) -> TeacherStoreWriter:
        """Carry on a store; leased as by ``create``."""
        arguments: dict[str, Any] = {"identity": self.identity, "recipe": self.recipe}
        run_id = self.hold(path)
        return TeacherStoreWriter.resume(open_folder(path), run_id, **(arguments | changes))

    def write(
        self, writer: TeacherStoreWriter, shard: int, said: Shard | None = None
    ) -> ShardReceipt:
        """Write a shard as ``shard`` makes it, or as it is given."""
        rows = writer.shard_rows(shard)
        return writer.write_shard(shard, *(said or self.shard(rows)), self.images_of(rows))

    def write_rest(self, writer: TeacherStoreWriter) -> str:
        """Write the pending shards and finish."""
        for shard in writer.pending_shards():
            self.write(writer, shard)
        return self.finish(writer)

    def finish(self, writer: TeacherStoreWriter) -> str:
        """Finish a store and give its lease back."""
        content = writer.finish()
        self.let_go(str(writer.layout.folder))
        return content

    def hold(self, path: Path | str) -> str:
        """Become the store's writer, unless that is so already, and return the run id."""
        if str(path) not in self._leases:
            self._leases[str(path)] = acquire_lease(open_folder(path))
        return self._leases[str(path)].run_id

    def let_go(self, path: Path | str) -> None:
        """Give the lease back, if there is one."""
        lease = self._leases.pop(str(path), None)
        if lease is not None:
            lease.release()

    def die(self, path: Path) -> None:
        """Drop the lease as a kill does: nobody beats or locks, and the file stays."""
        lease = self._leases.pop(str(path))
        left = (path / LEASE_NAME).read_bytes()
        lease.release()
        path.mkdir(parents=True, exist_ok=True)
        (path / LEASE_NAME).write_bytes(left)

    def let_all_go(self) -> None:
        for path in list(self._leases):
            self.let_go(path)

    def good_views(self, seed: int = 5) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and views of everything that the teacher gave, shuffled."""
        pairs = [(row, view) for row in range(7) for view in range(2) if (row, view) != (4, 1)]
        order = np.random.default_rng(seed).permutation(len(pairs))
        instances, views = np.array(pairs)[order].T
        return instances, views

    def digests(self, path: Path) -> dict[str, str]:
        """Return the sha256 of every file of a store but its writer's lease."""
        return {
            file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in walk_files(path)
            if file.name != LEASE_NAME
        }

    def flip(self, path: Path, offset: int) -> None:
        """Flip a bit of a file."""
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        path.write_bytes(data)

    def swap(self, first: Path, second: Path) -> None:
        """Exchange two files."""
        a, b = first.read_bytes(), second.read_bytes()
        first.write_bytes(b)
        second.write_bytes(a)

    def spec(self, store: Path, path: str) -> Any:
        """Return the spec of an array of a store that can be opened."""
        return TeacherStore.open(store)._layout.specs[path]


@pytest.fixture(scope="session")
def factory() -> StoreFactory:
    return StoreFactory()


@pytest.fixture(autouse=True)
def _no_lease_outlives_its_test(factory: StoreFactory) -> Any:
    yield
    factory.let_all_go()


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durability is tested with the file layer; elsewhere it would only take time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def whole(factory: StoreFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store, written without interruption; row 4 failed in view 1. Not to be changed."""
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    factory.write_rest(factory.create(path))
    return path


@pytest.fixture(scope="session")
def begun(factory: StoreFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose writer was killed after the shards 0 and 1. Not to be changed."""
    path = tmp_path_factory.mktemp("begun") / "store.zarr"
    writer = factory.create(path)
    factory.write(writer, 0)
    factory.write(writer, 1)
    factory.die(path)
    return path


@pytest.fixture(scope="session")
def stores_with_little_heat(
    factory: StoreFactory, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Stores whose heatmaps are compressed: whole, begun, and earlier, with other heatmaps."""
    folder = tmp_path_factory.mktemp("little_heat")
    paths = {name: folder / name for name in ("whole", "begun", "earlier")}
    for name, path in paths.items():
        writer = factory.create(path)
        for shard in range(2 if name == "begun" else 3):
            heatmaps, outputs, status = factory.shard(writer.shard_rows(shard))
            heatmaps[..., 1:, :] = 7 if name == "earlier" else 0
            factory.write(writer, shard, (heatmaps, outputs, status))
        if name == "begun":
            factory.die(path)
        else:
            factory.finish(writer)
    return paths


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The same store, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))
