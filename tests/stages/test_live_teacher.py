"""Laws of the teacher in the loop: it says what the store holds, so that training is the same."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import stages
from pipeline.caching.settings import CacheTeacherConfig
from pipeline.coco.image_files import decode_image
from pipeline.config import load_config
from pipeline.drawn.people import write_drawn_people
from pipeline.errors import ConfigError
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import apply
from pipeline.runs.run_folder import RunFolder
from pipeline.settings import TeacherSettings, ViewRecipe
from pipeline.teacher_store.reader import StoredViews, TeacherStore
from pipeline.teachers import Teacher, open_teacher
from pipeline.training import store_sources
from pipeline.training.batch import TrainingBatch
from pipeline.training.settings import LiveTeacherSettings, ReplayedViewSettings, TeacherField
from pipeline.training.store_sources import open_store_views
from pipeline.training.view_order import ViewBatch
from stages.cache_teacher import cache_teacher
from stages.settings.training import TrainStudentConfig
from stages.train_student import train_student
from store_schemas.errors import IdentityError
from store_schemas.heatmap_codec import dequantise_heatmaps, error_bound

HEATMAPS = frozenset[TeacherField]({"heatmaps"})
STUDENT = (128, 96)
VIEWS = ViewBatch(np.array([0, 1, 2, 3]), np.array([1, 2, 2, 1]))
DEMO_TEACHER = Path(stages.__file__).parent / "demo_teacher.safetensors"


class FloatStore(TeacherStore):
    """A store whose heatmaps are those of the teacher, as float32."""

    teacher_maps: NDArray[np.float32]
    """(N, V, K, Hh, Wh)."""

    def read(self, instances: Any, views: Any, out: Any = None) -> StoredViews:
        heatmaps = self.teacher_maps[instances, views]
        ones = np.ones(heatmaps.shape[:2], np.float32)
        return replace(super().read(instances, views), heatmaps=heatmaps, scale=ones)


def predict_all(store: TeacherStore, images: Path, teacher: Teacher) -> NDArray[np.float32]:
    """Return (N, V, K, Hh, Wh), the teacher's heatmaps of every view, person by person."""
    flips, maps = store.people.skeleton.flip_indices, []
    for row, image in enumerate(store.people.image_index.tolist()):
        pixels = decode_image(images / store.people.image_name[image])
        affines = store.views.image_to_crop[row]
        crops = np.stack([warp_crop(pixels, affine, store.input_size_hw) for affine in affines])
        maps.append(teacher.predict(crops, flips).heatmaps)
    return np.stack(maps)


def configure(store: Path, images: Path, data: dict[str, object], **changes: object) -> Any:
    fields = {
        "architecture": "distilpose-xxs",
        "store": str(store),
        "images": images,
        "data": data,
        "epochs": 5,
        "num_loader_workers": 0,
        "num_threads": 1,
        "device": "cpu",
        "optimisation": {"batch_size": 11, "warmup_steps": 0, "schedule": "constant"},
        "loss": {"teacher_regression": 0.5, "teacher_regression_on": "all", "moments": 0.01},
        **changes,
    }
    return load_config(TrainStudentConfig, fields=fields)


def losses(config: TrainStudentConfig, run_folder: Path) -> dict[str, NDArray[np.float64]]:
    """Train with one step an epoch, and return every term of every step."""
    train_student(config, run_folder)
    lines = [line for line in RunFolder(run_folder).read_metrics() if line["event"] == "epoch"]
    assert [line["step"] for line in lines] == list(range(1, config.epochs + 1))
    names = ["loss", *config.loss.terms]
    return {name: np.array([line[name] for line in lines], np.float64) for name in names}


@pytest.mark.parametrize("policy", ["stored", "drawn"])
def test_with_float_targets_replay_and_the_live_teacher_give_the_same_losses(
    averaged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """The first losses, term by term, to 1e-6, of a teacher with a flip test."""
    teacher = averaged.folder / "teacher.onnx"
    named = {"view_policy": "teacher-in-loop", "teacher": teacher}
    replayed: dict[str, object] = {"view_policy": "replay", "num_views": 2}
    changes: dict[str, Any] = {}
    if policy == "stored":
        named["num_views"] = 2
    else:  # new views of the store's seed and recipe are its views 1, 2, ...
        changes["epochs"] = 2
        monkeypatch.setattr("pipeline.training.view_order._offset", lambda *_: 0)
    folders = averaged.store, averaged.images
    there = losses(configure(*folders, named, **changes), tmp_path / "live")

    store = FloatStore.open(averaged.store)
    flip = {"flip_test": True, "flip_shift": 1}
    settings = averaged.config().teacher_settings.model_copy(update=flip)
    store.teacher_maps = predict_all(store, averaged.images, open_teacher(teacher, settings))
    with monkeypatch.context() as patched:
        patched.setattr(store_sources, "open_teachers", lambda *_: store)
        here = losses(configure(*folders, replayed, **changes), tmp_path / "replay")
    for name, values in here.items():
        np.testing.assert_allclose(there[name], values, rtol=0, atol=1e-6, err_msg=name)
    assert np.ptp(here["loss"]) > 1e-3


def batch_of(inputs: Any, data: LiveTeacherSettings, views: ViewBatch) -> TrainingBatch:
    images = None if data.from_crops else inputs.images
    teacher = inputs.folder / "teacher.onnx"
    opened = open_store_views(
        inputs.store, images, data.model_copy(update={"teacher": teacher}), HEATMAPS
    )
    loaded = opened.dataset(STUDENT)[views]
    assert loaded.teacher is None
    assert loaded.teacher_crops is not None
    assert loaded.teacher_crops.shape == (len(views.views), 256, 192, 3)
    return opened.with_targets(STUDENT)(loaded)


@pytest.mark.parametrize("has_crops", [False, True])
def test_live_targets_of_stored_views_are_the_stores_within_the_codecs_bound(
    inputs: Any, whole_store: Path, has_crops: bool
) -> None:
    """From images, and from a store with crops, whose teacher predicted the decoded JPEG."""
    if has_crops:
        cache_teacher(inputs.config(crops=True))
    else:
        shutil.copytree(whole_store, inputs.store)
    for from_crops in {False, has_crops}:
        data = LiveTeacherSettings(num_views=2, from_crops=from_crops)
        batch = batch_of(inputs, data, VIEWS)
        images = None if from_crops else inputs.images
        replay = ReplayedViewSettings(from_crops=from_crops)
        expected = open_store_views(inputs.store, images, replay, HEATMAPS).dataset(STUDENT)[VIEWS]
        assert batch.teacher_crops is None
        for name in ("images", "keypoints", "keypoint_weights", "areas"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name))
        now, then = batch.teacher, expected.teacher
        assert now is not None
        assert then is not None
        assert now.heatmaps is not None
        assert now.scale is None
        assert then.heatmaps is not None
        assert then.scale is not None
        stored, scale = then.heatmaps.numpy(), then.scale.numpy()
        bound = error_bound(stored, scale, TeacherStore.open(inputs.store).threshold)
        error = np.abs(dequantise_heatmaps(stored, scale) - now.heatmaps.numpy())
        assert (error <= bound + 1e-5).all()
        for name in ("crop_to_heatmap", "keypoints", "keypoint_weights", "confidences"):
            np.testing.assert_allclose(getattr(now, name), getattr(then, name), atol=1e-4)


def test_new_views_of_the_stores_seed_and_recipe_have_the_stores_targets(averaged: Any) -> None:
    """Their heatmaps are in the frame that the student's labels are mapped to."""
    batch = batch_of(averaged, LiveTeacherSettings(recipe=ViewRecipe()), VIEWS)
    store = TeacherStore.open(averaged.store)
    stored = store.read(*VIEWS)
    assert batch.teacher is not None
    assert batch.teacher.heatmaps is not None
    error = np.abs(
        dequantise_heatmaps(stored.heatmaps, stored.scale) - batch.teacher.heatmaps.numpy()
    )
    bound = error_bound(stored.heatmaps, stored.scale, store.threshold)
    assert (error <= bound + 1e-5).all()
    # A labelled point: through the student's crop, and through the teacher's, to one cell.
    labelled = batch.keypoint_weights.numpy() > 0
    cells = apply(batch.teacher.crop_to_heatmap.double().numpy(), batch.keypoints.numpy())
    truth = store.people.keypoints[VIEWS.instances]
    flips = list(store.people.skeleton.flip_indices)
    truth = np.where(stored.is_mirrored[:, None, None], truth[:, flips], truth)
    in_crop = apply(stored.image_to_crop, truth[..., :2])
    expected = (in_crop + 0.5) / 4 - 0.5  # half-pixel, 256x192 to 64x48
    assert labelled.sum() > 20
    np.testing.assert_allclose(cells[labelled], expected[labelled], atol=1e-4)


def test_a_live_teachers_tokens_are_those_that_a_store_keeps(drawn: Any, tmp_path: Path) -> None:
    """Of the demo's teacher: both kinds, to the rounding of float16."""
    store = tmp_path / "teacher.zarr"
    fields = {
        "annotations": drawn.annotations,
        "images": drawn.images,
        "teacher": DEMO_TEACHER,
        "store": str(store),
        "views": 1,
        "tokens": "both",
        "token_format": "float16",
        "accept_weak_teacher": True,
    }
    cache_teacher(load_config(CacheTeacherConfig, fields=fields))
    reads = frozenset[TeacherField]({"visual_tokens", "keypoint_tokens"})
    views = ViewBatch(np.array([0, 3]), np.array([1, 1]))
    data = LiveTeacherSettings(num_views=1)  # the teacher is where the store was written from
    live = open_store_views(store, drawn.images, data, reads)
    replayed = open_store_views(store, drawn.images, ReplayedViewSettings(), reads)
    assert live.token_shape == replayed.token_shape
    shape = live.token_shape
    found = live.with_targets(STUDENT)(live.dataset(STUDENT, shape)[views]).teacher
    expected = replayed.dataset(STUDENT, shape)[views].teacher
    assert found is not None
    assert expected is not None
    assert found.heatmaps is None
    for name in sorted(reads):
        tokens, stored = getattr(found, name), getattr(expected, name).float()
        torch.testing.assert_close(tokens, stored, rtol=2**-10, atol=1e-3)
    with pytest.raises(ConfigError, match=r"tokens must have one shape .* and no tokens; choose"):
        live.dataset(STUDENT, None)


def test_a_live_teacher_that_does_not_fit_is_refused_in_one_line(
    averaged: Any, whole_store: Path
) -> None:
    teacher = averaged.folder / "teacher.onnx"

    def open_live(store: Path = averaged.store, **data: Any) -> Any:
        settings = LiveTeacherSettings(**{"teacher": teacher, **data})
        return open_store_views(store, averaged.images, settings, HEATMAPS).dataset(STUDENT)

    with pytest.raises(ConfigError, match=r"data.teacher must name .* recorded place; give --tea"):
        open_live(teacher=None)
    with pytest.raises(ConfigError, match=r"on_corrupt must be raise with"):
        open_live(on_corrupt="skip")
    with pytest.raises(ConfigError, match=r"num_views is 3, but"):
        open_live(num_views=3)
    with pytest.raises(IdentityError, match=r"teacher.sha256' differs: .*; give the teacher"):
        open_live(whole_store)


@pytest.fixture(scope="module")
def demo_people(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Drawn people whom the demo's teacher, averaged with the mirrored crop, has predicted."""
    folder = tmp_path_factory.mktemp("demo")
    people = write_drawn_people(folder / "train", num_images=40, seed=1000)
    others = write_drawn_people(folder / "val", num_images=60, seed=1000, first_index=60)
    fields = {
        "annotations": people,
        "images": folder / "train/images",
        "teacher": DEMO_TEACHER,
        "store": str(folder / "teacher.zarr"),
        "views": 4,
        "teacher_settings.flip_test": True,
        "recipe": {"scale_factor": 0.3, "rotation_degrees": 25.0, "half_body_probability": 0.1},
    }
    cache_teacher(load_config(CacheTeacherConfig, fields=fields))
    return SimpleNamespace(folder=folder, store=folder / "teacher.zarr", val=others)


def train_on(people: Any, data: dict[str, object], **changes: object) -> TrainStudentConfig:
    fields: dict[str, Any] = {
        "data": data,
        "initial.weights": DEMO_TEACHER,
        "loss": {"regression": 0.1, "regression_kind": "l1", "sigma_floor": 2.0},
        **changes,
    }
    config: TrainStudentConfig = configure(people.store, people.folder / "train/images", **fields)
    return config


LIVE: dict[str, object] = {"view_policy": "teacher-in-loop", "num_views": 4}
REPLAY: dict[str, object] = {"view_policy": "replay", "num_views": 4}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_50_losses_of_the_demos_teacher_in_the_loop_are_those_of_float_targets(
    demo_people: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-6; and with stored heat they differ by no more than the codec's bound allows."""
    store = FloatStore.open(demo_people.store)
    count = len(store.present_instances())
    optimisation = {"batch_size": count, "warmup_steps": 10, "schedule": "constant"}
    changes: dict[str, Any] = {"epochs": 50, "optimisation": optimisation}
    live = losses(train_on(demo_people, LIVE, **changes), tmp_path / "live")
    coded = losses(train_on(demo_people, REPLAY, **{**changes, "epochs": 1}), tmp_path / "coded")
    teacher = open_teacher(DEMO_TEACHER, TeacherSettings(flip_test=True, num_threads=1))
    images = demo_people.folder / "train/images"
    store.teacher_maps = predict_all(store, images, teacher)
    with monkeypatch.context() as patched:
        patched.setattr(store_sources, "open_teachers", lambda *_: store)
        floats = losses(train_on(demo_people, REPLAY, **changes), tmp_path / "floats")
    for name, values in floats.items():
        np.testing.assert_allclose(live[name], values, rtol=0, atol=1e-6, err_msg=name)
    # The mean of (g - t)^2 over cells moves by at most d (2 |g - t| + d) if t moves by d.
    rows, views = np.divmod(np.arange(store.status.size), store.num_views)
    largest = max(float(TeacherStore.read(store, rows, views).scale.max()), store.threshold)
    bound = largest + max(0.0, -float(store.teacher_maps.min()))  # uint8 has no negative heat
    moved = abs(coded["simulated_heatmap"][0] - floats["simulated_heatmap"][0])
    assert 0 < moved <= bound * (2 * floats["simulated_heatmap"][0] ** 0.5 + bound)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_final_oks_with_the_teacher_in_the_loop_is_within_the_spread_of_seeds(
    demo_people: Any, tmp_path: Path
) -> None:
    figures: dict[str, list[float]] = {}
    for policy, data in (("live", LIVE), ("replay", REPLAY)):
        for seed in (0, 1, 2):
            config = train_on(
                demo_people, data, seed=seed, epochs=12, evaluate_every_epochs=12,
                val_annotations=demo_people.val, val_images=demo_people.folder / "val/images",
                optimisation={"batch_size": 32, "warmup_steps": 20, "schedule": "cosine",
                              "optimizer": "adamw"},
            )  # fmt: skip
            train_student(config, tmp_path / f"{policy}-{seed}")
            lines = RunFolder(tmp_path / f"{policy}-{seed}").read_metrics()
            (validation,) = [line for line in lines if line["event"] == "validation"]
            figures.setdefault(policy, []).append(float(str(validation["mean_oks"])))
    spread = np.ptp(figures["replay"])
    assert abs(np.mean(figures["live"]) - np.mean(figures["replay"])) <= spread
    assert min(figures["replay"]) > 0.2
