"""A few drawn people with a teacher that knows the truth, and real people with a real teacher."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.caching.settings import CacheTeacherConfig
from pipeline.coco.image_files import resolve_image
from pipeline.coco.read_people import read_people
from pipeline.config import load_config
from pipeline.drawn.people import write_drawn_people
from pipeline.frames.geometry import apply, crop_to_heatmap
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.frames.views import draw_views
from pipeline.settings import PeopleSettings, StoredPeopleSettings, ViewRecipe
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import acquire_lease
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teacher_store.writer import NewTeacher, begin_teacher
from pipeline.training.data import move_keypoints
from stages import cache_teacher as cache_teacher_stage
from stages.cache_teacher import cache_teacher
from store_schemas.formats import PROFILES
from store_schemas.heatmap_codec import quantise_heatmaps
from store_schemas.manifest import digest_of_images
from store_schemas.teacher_store import Status
from tests.support.drawn_people import DrawnPeople
from tests.support.evaluation_sample import Sample, draw_sample, save_network
from tests.support.onnx_teacher import write_onnx_teacher

INPUT_SIZE_HW = (256, 192)
HEATMAP_SIZE_HW = (64, 48)

StoreMaker = Callable[..., Path]


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
    profile: str = "default",
) -> Path:
    """Write a store whose heatmaps are Gaussians around the truth, in the frame msra."""
    people = read_people(drawn.annotations, drawn.images, PeopleSettings())
    recipe = ViewRecipe(rotation_degrees=10.0, half_body_probability=0.0)
    views = draw_views(people, recipe, 0, 2, input_size_hw)
    digests = [
        hashlib.sha256(resolve_image(drawn.images, name).read_bytes()).digest()
        for name in people.image_name
    ]
    image_sha256 = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32).copy()
    folder = LocalFolder(path)
    lease = acquire_lease(folder)
    plan = ViewPlan(
        views.image_to_crop,
        views.is_mirrored,
        input_size_hw,
        seed=0,
        recipe=recipe.model_dump(mode="json"),
    )
    threshold = 0.0 if profile == "lossless-float16" else 0.01
    teacher = NewTeacher(
        name="truth",
        identity={"heatmap_frame": "msra"},
        recipe={},
        provenance={},
        heatmap_size_hw=HEATMAP_SIZE_HW,
        threshold=threshold,
        profile=PROFILES[profile],
        rows_per_shard=4,
    )
    writer = begin_teacher(folder, lease.run_id, people, image_sha256, plan, teacher)
    to_heatmap = crop_to_heatmap("msra", input_size_hw, HEATMAP_SIZE_HW)
    for shard in writer.pending_shards()[: None if is_complete else 1]:
        rows = writer.shard_rows(shard)
        shape = (len(rows), 3, people.skeleton.num_keypoints)
        outputs = np.ones((*shape, 4), np.float32)
        points = np.empty((*shape, 2))
        for i, row in enumerate(rows):
            whole = np.repeat(people.keypoints[row][None], 3, axis=0)
            points[i], weights, _ = move_keypoints(
                whole, people.skeleton, views.image_to_crop[row], input_size_hw
            )
            points[i][weights == 0] = np.nan
        heat = encode_keypoints(apply(to_heatmap, points), HEATMAP_SIZE_HW)
        heatmaps, outputs[..., 0] = quantise_heatmaps(heat, threshold, PROFILES[profile])
        status = np.full(shape[:2], Status.OK, np.uint8)
        if failed_row is not None and failed_row in rows:
            status[failed_row - rows.start, 1] = Status.IMAGE_UNREADABLE
        images = digest_of_images(image_sha256, people.image_index[rows.start : rows.stop])
        writer.write_shard(shard, heatmaps, outputs, status, images)
    if is_complete:
        writer.finish()
    lease.release()
    return path


@dataclass(frozen=True)
class RealPeople:
    """Real people, a real teacher, and what it said of nine views of everyone."""

    annotations: Path
    images: Path
    teacher: Path
    store: Path


@pytest.fixture(scope="session")
def real_coco(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RealPeople:
    """The 94 labelled people of coco_sample, cached."""
    data = shared_folder / "data/coco_sample"
    store = tmp_path_factory.mktemp("coco") / "teacher.zarr"
    return cache_real(shared_folder, data / "person_keypoints.json", data / "images", store)


@pytest.fixture(scope="session")
def real_lspet(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RealPeople:
    """The first 80 people of LSPET's validation set, cached."""
    folder, data = tmp_path_factory.mktemp("lspet"), shared_folder / "data/lspet"
    document = json.loads((data / "annotations/val.json").read_text())
    document["annotations"] = document["annotations"][:80]
    images = {annotation["image_id"] for annotation in document["annotations"]}
    document["images"] = [image for image in document["images"] if image["id"] in images]
    (folder / "people.json").write_text(json.dumps(document))
    store = folder / "teacher.zarr"
    return cache_real(shared_folder, folder / "people.json", data / "images", store)


def cache_real(shared: Path, annotations: Path, images: Path, store: Path) -> RealPeople:
    teacher = shared / "teachers/ultralight_simplepose_256x192.onnx"
    cache_teacher(
        CacheTeacherConfig(
            annotations=annotations,
            images=images,
            teacher=teacher,
            store=str(store),
            people=StoredPeopleSettings(only_labelled=True),
        )
    )
    return RealPeople(annotations, images, teacher, store)


@dataclass(frozen=True)
class CachingInputs:
    """People, images and a teacher in a folder that a test may change."""

    folder: Path

    @property
    def annotations(self) -> Path:
        return self.folder / "people.json"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def store(self) -> Path:
        return self.folder / "new" / "teacher.zarr"

    def config(self, **changes: object) -> CacheTeacherConfig:
        settings: dict[str, object] = {
            "annotations": self.annotations,
            "images": self.images,
            "teacher": self.folder / "teacher.onnx",
            "store": str(self.store),
            "views": 2,
            "accept_weak_teacher": True,
            "teacher_settings.heatmap_frame": "half-pixel",
            "teacher_settings.heatmap_activation": "sigmoid",
            "teacher_settings.batch_size": 4,
            "teacher_settings.num_threads": 1,
            "training.student": "distilpose-xxs",
        }
        fields = {**settings, **{name.replace("__", "."): v for name, v in changes.items()}}
        return load_config(CacheTeacherConfig, fields=fields)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        document = json.loads(self.annotations.read_text())
        change(document)
        self.annotations.write_text(json.dumps(document))

    def image_of_row(self, row: int) -> Path:
        """Return the image of the person in a row of the store: rows go by image, then by id."""
        document = json.loads(self.annotations.read_text())
        images = sorted(a["image_id"] for a in document["annotations"])
        return self.images / f"{images[row]:06d}.jpg"

    def write_teacher(self, **changes: Any) -> None:
        """Put another teacher in the place of this one."""
        write_onnx_teacher(self.folder / "teacher.onnx", **changes)

    def truncate(self, row: int) -> Path:
        """Leave of a person's image a header that can be read and half of the pixels."""
        path = self.image_of_row(row)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path

    def digests(self, folder: Path | None = None) -> dict[str, str]:
        """Return the sha256 of every file of the store, or of another folder."""
        root = folder or self.store
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def inputs(drawn: DrawnPeople, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CachingInputs:
    """Drawn people to cache: shards of two people, and the same provenance every time."""
    return _make_inputs(drawn, tmp_path, monkeypatch)


def _make_inputs(
    drawn: DrawnPeople, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> CachingInputs:
    shutil.copytree(drawn.images, folder / "images")
    shutil.copy(drawn.annotations, folder / "people.json")
    write_onnx_teacher(folder / "teacher.onnx")
    patch_writing(monkeypatch)
    return CachingInputs(folder)


def patch_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process write shards of two people, and the same provenance every time."""
    rows = "pipeline.teacher_store.writer.planned_rows_per_shard"
    monkeypatch.setattr(rows, lambda *_: 2)
    monkeypatch.setattr(cache_teacher_stage, "provenance", lambda **_: {})


@pytest.fixture(scope="session")
def whole_store(drawn: DrawnPeople, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete store that ``inputs`` leads to; to be copied, not changed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = _make_inputs(drawn, tmp_path_factory.mktemp("whole"), monkeypatch)
        cache_teacher(made.config())
    return made.store


@pytest.fixture(scope="session")
def averaged(drawn: DrawnPeople, tmp_path_factory: pytest.TempPathFactory) -> CachingInputs:
    """A complete store of a teacher that is not symmetric, averaged with the mirrored crop, whose
    heatmaps are shifted by one cell; float16, not to be changed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = _make_inputs(drawn, tmp_path_factory.mktemp("averaged"), monkeypatch)
        made.write_teacher(is_symmetric=False)
        flip = {"teacher_settings__flip_test": True, "teacher_settings__flip_shift": 1}
        cache_teacher(made.config(profile="lossless-float16", **flip))
    return made


@pytest.fixture
def whole(inputs: CachingInputs, whole_store: Path) -> dict[str, str]:
    """A complete store of ``inputs``; its files' digests."""
    shutil.copytree(whole_store, inputs.store)
    return inputs.digests()


@pytest.fixture
def hurried_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that retries and reads the list of workers without the usual waits."""
    monkeypatch.setattr("pipeline.caching.cluster.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("pipeline.caching.cluster.WORKERS_SECONDS", 0.2)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """People to evaluate poses on; a test may change them."""
    return draw_sample(tmp_path)


@pytest.fixture
def student(sample: Sample) -> Path:
    """The weights of a student that learned nothing, as the best of the run folder ``runs/a``."""
    return save_network(sample.folder / "runs" / "a" / "checkpoints" / "best.safetensors")
