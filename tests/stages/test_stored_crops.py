"""Laws of crops from cache to student: no image is opened, and little is lost; nothing is mixed."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.benchmarks.processes import measure_crop_loading
from pipeline.caching import estimate
from pipeline.config import load_config
from pipeline.errors import ConfigError, TeacherError
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import resize_affine
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.settings import ReplayedViewSettings, TeacherField
from pipeline.training.store_sources import open_store_views
from pipeline.training.view_order import ViewBatch
from stages.benchmark_crops import benchmark_crops
from stages.cache_teacher import cache_teacher
from stages.plan_cache import plan_cache
from stages.settings.benchmark import BenchmarkCropsConfig
from stages.settings.evaluation import StoreRepairConfig, StoreVerifyConfig
from stages.settings.training import TrainStudentConfig
from stages.store_repair import store_repair
from stages.store_verify import store_verify
from stages.train_student import train_student
from store_schemas.errors import CorruptError, IdentityError
from tests.support.training_batches import tensors_of

FROM_CROPS = ReplayedViewSettings(from_crops=True)
STORED_HW = (256, 192)


@pytest.fixture
def with_crops(inputs: Any) -> Any:
    """A complete store with crops."""
    cache_teacher(inputs.config(crops=True))
    return inputs


def first_views(store: Path) -> ViewBatch:
    rows = TeacherStore.open(store).present_instances()
    return ViewBatch(np.repeat(rows, 2), np.tile([1, 2], len(rows)))


def mean_difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(np.abs(first.astype(np.float32) - second).mean())


@pytest.mark.parametrize("size_hw", [(256, 192), (128, 96)])
def test_batches_from_crops_are_those_from_images_but_for_the_jpeg(
    with_crops: Any, size_hw: tuple[int, int]
) -> None:
    """Without the images' folder; at the stored size, and resized from it."""
    store, batch = with_crops.store, first_views(with_crops.store)
    opened = open_store_views(
        store, with_crops.images, ReplayedViewSettings(), reads=frozenset({"heatmaps"})
    )
    expected = opened.dataset(size_hw)[batch]
    crops = opened.dataset(STORED_HW)[batch].images.numpy()
    resize = resize_affine(STORED_HW, size_hw)
    lossless = np.stack([warp_crop(crop, resize, size_hw) for crop in crops])
    shutil.rmtree(with_crops.images)
    views = open_store_views(store, None, FROM_CROPS, reads=frozenset({"heatmaps"}))
    found = views.dataset(size_hw)[batch]
    tensors, same = tensors_of(found), tensors_of(expected)
    for name in ("keypoints", "keypoint_weights", "crop_to_heatmap", "heatmaps", "scale"):
        np.testing.assert_array_equal(tensors[name], same[name], strict=True)
    assert found.images.shape == expected.images.shape
    assert found.images.dtype == expected.images.dtype
    pairs = list(zip(found.images.numpy(), lossless, strict=True))
    differences = [mean_difference(a, b) for a, b in pairs]
    assert 0 < max(differences) < 4
    shifted = [mean_difference(a, np.roll(b, 1, axis=1)) for a, b in pairs]
    assert np.mean(shifted) > np.mean(differences)


def test_a_student_trains_without_images(with_crops: Any, tmp_path: Path) -> None:
    shutil.rmtree(with_crops.images)
    fields = {
        "architecture": "distilpose-xs",
        "store": str(with_crops.store),
        "data.from_crops": True,
        "epochs": 1,
        "optimisation.batch_size": 4,
        "num_loader_workers": 0,
        "num_threads": 1,
        "device": "cpu",
    }
    result = train_student(load_config(TrainStudentConfig, fields=fields), tmp_path / "run")
    assert result.steps > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"store": "s"}, "images must be given"),
        ({"store": "s", "data.from_crops": True, "val_annotations": "v"}, "give --val-images"),
        ({"annotations": "a", "images": "i", "distillation": False, "data.from_crops": True},
         r"unknown setting data\.from_crops \(data of annotations\)"),
    ],
)  # fmt: skip
def test_settings_that_leave_pixels_without_a_source_are_refused(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(TrainStudentConfig, fields=given)


def test_crops_alone_are_read_where_heatmaps_are_not_used(with_crops: Any) -> None:
    batch = first_views(with_crops.store)
    views = open_store_views(with_crops.store, None, FROM_CROPS, reads=frozenset())
    found = views.dataset((256, 192))[batch]
    assert found.teacher is None
    stored = TeacherStore.open(with_crops.store).read_crops(*batch)
    np.testing.assert_array_equal(found.images.numpy(), stored, strict=True)


def test_a_store_without_crops_is_refused_in_one_line(store: Path) -> None:
    with pytest.raises(ConfigError, match=r"must hold crops to be trained from without images"):
        open_store_views(store, None, FROM_CROPS, reads=frozenset({"heatmaps"}))


def crops_file(inputs: Any, shard: int) -> Path:
    (path,) = (inputs.store / "teachers/teacher/crops").glob(f"c.{shard}.*")
    return Path(path)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("reads", [frozenset({"heatmaps"}), frozenset()])
def test_a_corrupt_crop_stops_or_is_replaced_by_another_view(
    with_crops: Any, reads: frozenset[TeacherField]
) -> None:
    path = crops_file(with_crops, 0)
    data = bytearray(path.read_bytes())
    index = np.frombuffer(bytes(data[-16 * 6 - 4 : -4]), "<u8").reshape(2, 3, 2)
    offset, length = index[0, 1].tolist()
    data[offset + length // 2] ^= 1
    path.write_bytes(bytes(data))
    batch = ViewBatch(np.array([0, 1]), np.array([1, 1]))
    strict = open_store_views(with_crops.store, None, FROM_CROPS, reads).dataset((256, 192))
    with pytest.raises(CorruptError, match="shard 0, row 0, view 1"):
        strict[batch]
    skipping = ReplayedViewSettings(from_crops=True, on_corrupt="skip")
    views = open_store_views(with_crops.store, None, skipping, reads)
    found = views.dataset((256, 192))[batch]
    assert [(r.instance, r.view, r.replaced_by) for r in found.replacements] == [(0, 1, 2)]
    other = TeacherStore.open(with_crops.store).read_crops([0, 1], [2, 1])
    np.testing.assert_array_equal(found.images.numpy(), other, strict=True)


def test_verify_and_repair_know_of_crops(with_crops: Any) -> None:
    before = with_crops.digests()
    teacher = with_crops.folder / "teacher.onnx"
    given = {
        "store": str(with_crops.store),
        "teacher": teacher,
        "images": with_crops.images,
    }
    assert not any(store_verify(StoreVerifyConfig(**given)).problems.values())
    flip(crops_file(with_crops, 1))
    (problem,) = store_verify(StoreVerifyConfig(**given)).problems["shards"]
    assert "shard 1: teachers/teacher/crops/c.1" in problem
    store_repair(StoreRepairConfig(**given))
    assert with_crops.digests() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crops": False}, "'crops.length' differs: the store has .*, now it is <absent>"),
        ({"crop_quality": 50}, "'crops.quality' differs: the store has 90, now it is 50"),
    ],
)
def test_resuming_with_other_crops_is_refused(
    with_crops: Any, change: dict[str, object], message: str
) -> None:
    with pytest.raises(IdentityError, match=message):
        cache_teacher(with_crops.config(**({"crops": True} | change)), resume=True)


def test_resuming_a_store_without_crops_with_crops_is_refused(
    inputs: Any, whole: dict[str, str]
) -> None:
    with pytest.raises(IdentityError, match=r"'crops.length' differs: the store has <absent>"):
        cache_teacher(inputs.config(crops=True), resume=True)
    assert inputs.digests() == whole


def test_tokens_of_an_onnx_teacher_are_refused_and_nothing_is_written(inputs: Any) -> None:
    with pytest.raises(TeacherError, match=r"tokens must come from a teacher of `distil train-t"):
        cache_teacher(inputs.config(tokens="visual"))
    assert not (inputs.store / "zarr.json").exists()


def test_a_plan_counts_crops_and_says_their_bytes_a_view(
    inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "planned_rows_per_shard", lambda *_: 2)
    said: list[str] = []
    config = inputs.config(crops=True)
    cost = plan_cache(config, with_probe=True, say=said.append)
    result = cache_teacher(config)
    assert cost.num_bytes == pytest.approx(result.num_bytes, rel=0.005)
    files = [crops_file(inputs, shard).stat().st_size for shard in range(result.num_people // 2)]
    measured = sum(files) / (result.num_people // 2 * 2 * result.num_views)
    assert cost.optional_bytes_per_view["crops"] == pytest.approx(measured, rel=0.02)
    assert any("estimate: of these, crops about" in line for line in said)
    guessed = plan_cache(config, with_probe=False).optional_bytes_per_view["crops"]
    assert guessed == pytest.approx(256 * 192 * estimate.TYPICAL_CROP_BITS_PER_PIXEL / 8)


def test_the_benchmark_compares_every_quality_with_the_lossless_crop(
    with_crops: Any, tmp_path: Path
) -> None:
    settings = with_crops.config().teacher_settings
    result = benchmark_crops(
        BenchmarkCropsConfig(
            annotations=with_crops.annotations,
            images=with_crops.images,
            teacher=with_crops.folder / "teacher.onnx",
            teacher_settings=settings,
            people_count=4,
            output=tmp_path / "out",
        )
    )
    lossless, *others = result.figures.figures
    assert (lossless.name, lossless.bytes_per_view) == ("lossless", 3 * 256 * 192)
    assert (lossless.mean_oks_change, lossless.median_shift) == (0, 0)
    for subsampling in ("4:4:4", "4:2:0"):
        sizes = [f.bytes_per_view for f in others if f.name.endswith(subsampling)]
        assert len(sizes) == 4
        assert sizes == sorted(sizes)
    assert result.figures.loading is None
    assert result.written is not None
    assert result.written.exists()


def test_loading_is_measured_from_images_and_crops_with_targets_and_without(
    with_crops: Any, store: Path
) -> None:
    found = measure_crop_loading(
        with_crops.store, with_crops.images, num_batches=1, batch_size=2, num_rounds=1
    )
    assert min(found.images, found.images_with_targets, found.crops) > 0
    assert found.speed_up == found.images_with_targets / found.crops_with_targets
    with pytest.raises(ConfigError, match="must hold crops; write a store with"):
        measure_crop_loading(store, with_crops.images)
