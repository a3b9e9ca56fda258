"""Laws of a student's training as a whole: exact resume, independence of workers, score rules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import load_config
from pipeline.frames.geometry import apply
from pipeline.frames.heatmaps import decode_heatmaps as find_peaks
from pipeline.progress import NoProgress
from pipeline.runs.checkpoints import load_network, read_info
from pipeline.runs.run_folder import RunFolder
from pipeline.training.settings import LossConfig, ReplayedViewSettings
from pipeline.training.store_sources import open_store_views
from pipeline.training.view_order import ViewBatch
from stages import PRESETS, preset_file
from stages.settings.training import TrainStudentConfig
from stages.train_student import train_student
from store_schemas.heatmap_codec import dequantise_heatmaps
from tests.support.training_batches import heatmaps_of

SETTINGS = {
    "architecture": "distilpose-xs",
    "epochs": 3,
    "evaluate_every_epochs": 2,
    "num_loader_workers": 0,
    "num_threads": 1,
    "device": "cpu",
    "optimisation": {"batch_size": 4, "warmup_steps": 2, "optimizer": "adamw"},
}


def configure(drawn: Any, store: Path | None, **changes: object) -> TrainStudentConfig:
    source = {"annotations": drawn.annotations} if store is None else {"store": store}
    fields = {"images": drawn.images, "val_annotations": drawn.annotations, **source, **changes}
    base = {**SETTINGS, "distillation": store is not None}
    return load_config(TrainStudentConfig, fields={**base, **fields})


def results(run_folder: Path) -> dict[str, bytes]:
    folder = RunFolder(run_folder)
    files = (folder.metrics, folder.last_weights, folder.best_weights, folder.training_state)
    return {path.name: path.read_bytes() for path in files}


class Killed(Exception):
    pass


class KilledAtStep(NoProgress):
    """A training that dies in the middle of an epoch."""

    def __init__(self, step: int) -> None:
        self.last_step = step

    def update(self, done: int, *news: Any) -> None:
        if done >= self.last_step:
            raise Killed


@pytest.fixture(scope="module")
def finished(drawn: Any, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an uninterrupted training."""
    run_folder = tmp_path_factory.mktemp("runs") / "whole"
    train_student(configure(drawn, store), run_folder)
    return run_folder


def test_stored_heatmaps_peak_where_the_students_crop_puts_the_keypoints(
    drawn: Any, store: Path
) -> None:
    """Mirrored or not, through the resized crop and the teacher's frame."""
    views = open_store_views(
        store, drawn.images, ReplayedViewSettings(), reads=frozenset({"heatmaps"})
    )
    rows = np.repeat(views.instances, 2)
    batch = views.dataset((128, 96))[ViewBatch(rows, np.tile([1, 2], len(views.instances)))]
    heatmaps, scale = heatmaps_of(batch)
    heat = dequantise_heatmaps(heatmaps.numpy(), scale.numpy())
    peaks, _ = find_peaks(heat, "dark")
    assert batch.teacher is not None
    affines = batch.teacher.crop_to_heatmap.double().numpy()
    expected = apply(affines, batch.keypoints.double().numpy())
    is_inner = ((expected > 3) & (expected < [44, 60])).all(axis=-1)
    used = is_inner & (batch.keypoint_weights.numpy() > 0)
    mirrored = views.store.views.is_mirrored[rows, np.tile([1, 2], len(views.instances))]
    assert used[mirrored].any()
    assert used[~mirrored].any()
    assert np.abs(peaks - expected)[used].max() < 0.05


def test_a_resumed_training_equals_an_uninterrupted_one_byte_for_byte(
    drawn: Any, store: Path, finished: Path, tmp_path: Path
) -> None:
    """Killed after the last step of the second epoch, before its checkpoint."""
    config = configure(drawn, store)
    steps = read_info(RunFolder(finished).last_weights).step
    with pytest.raises(Killed):
        train_student(config, tmp_path / "run", progress=KilledAtStep(2 * steps // 3))
    assert len(RunFolder(tmp_path / "run").read_metrics()) == 1
    train_student(config, tmp_path / "run", resume=True)
    assert results(tmp_path / "run") == results(finished)


def test_metrics_of_an_epoch_without_checkpoint_are_dropped_on_resume(
    drawn: Any, store: Path, finished: Path, tmp_path: Path
) -> None:
    config = configure(drawn, store)
    with pytest.raises(Killed):
        train_student(config, tmp_path / "run", progress=KilledAtStep(4))
    folder = RunFolder(tmp_path / "run")
    folder.append_metrics({"event": "epoch", "epoch": 9, "step": 900})
    with folder.metrics.open("a") as file:
        file.write('{"event": "epo')  # a kill in the middle of a line
    train_student(config, tmp_path / "run", resume=True)
    assert results(tmp_path / "run") == results(finished)


def test_a_training_killed_in_its_first_epoch_begins_again_on_resume(
    drawn: Any, store: Path, finished: Path, tmp_path: Path
) -> None:
    config = configure(drawn, store)
    with pytest.raises(Killed):
        train_student(config, tmp_path / "run", progress=KilledAtStep(1))
    train_student(config, tmp_path / "run", resume=True)
    assert results(tmp_path / "run") == results(finished)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_loader_workers_change_nothing(
    drawn: Any, store: Path, finished: Path, tmp_path: Path
) -> None:
    train_student(configure(drawn, store, num_loader_workers=2), tmp_path / "run")
    assert results(tmp_path / "run") == results(finished)


def test_more_epochs_go_on_from_the_end(
    drawn: Any, store: Path, finished: Path, tmp_path: Path
) -> None:
    """With a constant learning rate, 2 epochs and then 1 more are 3 epochs."""
    constant = {**SETTINGS["optimisation"], "schedule": "constant"}  # type: ignore[dict-item]
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    train_student(configure(drawn, store, optimisation=constant), whole)
    train_student(configure(drawn, store, optimisation=constant, epochs=2), grown)
    train_student(configure(drawn, store, optimisation=constant), grown, resume=True)
    last = RunFolder(whole).last_weights.read_bytes()
    assert RunFolder(grown).last_weights.read_bytes() == last


def test_every_configured_term_is_logged_by_name(finished: Path) -> None:
    epochs = [m for m in RunFolder(finished).read_metrics() if m["event"] == "epoch"]
    assert len(epochs) == 3
    for line in epochs:
        assert {"regression", "simulated_heatmap", "confidence", "loss"} <= line.keys()


def test_validation_is_logged_every_n_epochs_and_at_the_end(finished: Path) -> None:
    lines = [m for m in RunFolder(finished).read_metrics() if m["event"] == "validation"]
    assert [line["epoch"] for line in lines] == [2, 3]
    assert {"AP", "AP_with_score_one", "mean_oks"} <= lines[0].keys()


def test_a_distilled_student_has_learned_scores_of_the_keypoints_it_saw(finished: Path) -> None:
    network, info = load_network(RunFolder(finished).best_weights)
    assert (info.kind, info.score_rule) == ("student", "learned")
    assert info.scored_keypoints
    assert info.store_fingerprint is not None
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 128, 96)).keypoints.shape == (1, 17, 2)


@pytest.mark.parametrize(
    "changes",
    [{"distillation": False}, {"loss": {"confidence": 0.0}}],
    ids=["not distilled", "no confidence term"],
)
def test_a_score_that_was_never_trained_is_one_by_rule(
    drawn: Any, store: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    train_student(configure(drawn, store, epochs=1, **changes), tmp_path / "run")
    info = read_info(RunFolder(tmp_path / "run").last_weights)
    assert (info.score_rule, info.scored_keypoints) == ("one", ())


def test_the_losses_of_a_float16_store_are_those_of_the_default_profile_within_its_bound(
    drawn: Any, store: Path, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    """At a learning rate of almost 0 both trainings compare the same student with the two."""
    still = {"batch_size": 4, "learning_rate": 1e-30, "schedule": "constant"}
    stores = {"uint8": store, "float16": make_store(profile="lossless-float16")}
    losses = {}
    replayed = {"view_policy": "replay"}
    for name, path in stores.items():
        config = configure(
            drawn, path, epochs=1, val_annotations=None, optimisation=still, data=replayed
        )
        assert train_student(config, tmp_path / name).steps == 2
        (losses[name],) = RunFolder(tmp_path / name).read_metrics()
    exact, rounded = ({k: float(str(losses[n][k])) for k in LossConfig().terms} for n in losses)
    bound = 0.01  # max(scale, threshold), the error of a cell's heat
    assert exact["regression"] == pytest.approx(rounded["regression"], rel=1e-6)
    assert abs(exact["confidence"] - rounded["confidence"]) <= bound
    roots = [found["simulated_heatmap"] ** 0.5 for found in (exact, rounded)]
    assert min(roots) > 3 * bound
    assert abs(roots[0] - roots[1]) <= bound


def test_all_keypoints_are_scored_where_unlabelled_ones_are_distilled(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    loss = {"distil_unlabelled_keypoints": True}
    train_student(configure(drawn, store, epochs=1, loss=loss), tmp_path / "run")
    info = read_info(RunFolder(tmp_path / "run").last_weights)
    assert info.scored_keypoints == tuple(range(17))


def test_without_a_store_every_epoch_has_fresh_views(drawn: Any, tmp_path: Path) -> None:
    config = configure(drawn, None, epochs=2, val_annotations=None)
    result = train_student(config, tmp_path / "run")
    assert result.best_ap is None
    lines = RunFolder(tmp_path / "run").read_metrics()
    assert [sorted(line.keys() - {"loss"}) for line in lines] == 2 * [
        ["epoch", "event", "learning_rate", "person_views", "regression", "step"]
    ]
    assert RunFolder(tmp_path / "run").best_weights.is_file()


def test_distilled_and_plain_students_of_a_seed_start_from_the_same_weights(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    """At a learning rate of almost 0 the trained weights are still the first ones."""
    still = {"batch_size": 4, "learning_rate": 1e-30, "schedule": "constant"}
    weights = []
    for name, distillation in (("a", True), ("b", False)):
        config = configure(drawn, store, epochs=1, distillation=distillation, optimisation=still)
        train_student(config, tmp_path / name)
        network, _ = load_network(RunFolder(tmp_path / name).last_weights)
        weights.append(dict(network.named_parameters()))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=1e-25)


def test_initial_weights_are_copied_by_part(
    drawn: Any, store: Path, finished: Path, tmp_path: Path
) -> None:
    start = RunFolder(finished).last_weights
    still = {"batch_size": 4, "learning_rate": 1e-30, "schedule": "constant"}
    config = configure(
        drawn,
        store,
        epochs=1,
        seed=1,
        optimisation=still,
        initial={"weights": start, "parts": ["backbone"]},
    )
    train_student(config, tmp_path / "run")
    old, new = (
        dict(load_network(path)[0].named_parameters())
        for path in (start, RunFolder(tmp_path / "run").last_weights)
    )
    equal = {name: torch.allclose(old[name], new[name], rtol=0, atol=1e-25) for name in old}
    assert all(is_equal for name, is_equal in equal.items() if name.startswith("backbone."))
    assert not equal["encoder.keypoint_tokens"]


def test_config_json_rebuilds_the_configuration(drawn: Any, store: Path, finished: Path) -> None:
    assert RunFolder(finished).read_config(TrainStudentConfig) == configure(drawn, store)


def test_provenance_names_the_store_and_every_session(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    config = configure(drawn, store, epochs=1)
    train_student(config, tmp_path / "run", command=("distil", "train-student"))
    train_student(config, tmp_path / "run", resume=True)
    events = json.loads(RunFolder(tmp_path / "run").provenance.read_bytes())
    assert [event["event"] for event in events] == ["start", "resume"]
    assert len(events[0]["store_fingerprint"]) == 64
    assert events[0]["command"] == ["distil", "train-student"]


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("distilpose-*.toml")))
def test_a_shipped_preset_is_a_valid_configuration(preset: str) -> None:
    fields = {"store": Path("teacher.zarr"), "images": Path("images")}
    config = load_config(TrainStudentConfig, preset=preset_file(preset), fields=fields)
    assert config.architecture == preset.removesuffix("-no-tokens")
