"""Laws of a teacher's training: it learns Gaussians, states its frame, and resumes exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.runs.checkpoints import load_network
from pipeline.runs.run_folder import RunFolder
from stages.settings.training import TrainTeacherConfig
from stages.train_teacher import train_teacher


def configure(drawn: Any, **changes: object) -> TrainTeacherConfig:
    settings: dict[str, object] = {
        "architecture": "tokenpose-xs",
        "annotations": drawn.annotations,
        "images": drawn.images,
        "epochs": 4,
        "num_loader_workers": 0,
        "num_threads": 1,
        "device": "cpu",
        "optimisation": {"batch_size": 4, "warmup_steps": 2, "schedule": "constant"},
    }
    return load_config(TrainTeacherConfig, fields={**settings, **changes})


def test_a_teacher_learns_and_states_what_its_heatmaps_mean(drawn: Any, tmp_path: Path) -> None:
    result = train_teacher(configure(drawn), tmp_path / "run")
    losses = [float(str(m["heatmap"])) for m in RunFolder(tmp_path / "run").read_metrics()]
    assert losses[-1] < 0.5 * losses[0]
    network, info = load_network(result.weights)
    assert (info.kind, info.heatmap_frame, info.heatmap_size_hw) == (
        "teacher",
        "half-pixel",
        (64, 48),
    )
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 128, 96)).heatmaps.shape == (1, 17, 64, 48)


def test_a_resumed_teacher_equals_an_uninterrupted_one(drawn: Any, tmp_path: Path) -> None:
    train_teacher(configure(drawn, epochs=2), tmp_path / "whole")
    train_teacher(configure(drawn, epochs=1), tmp_path / "grown")
    train_teacher(configure(drawn, epochs=2), tmp_path / "grown", resume=True)
    whole, grown = (RunFolder(tmp_path / name) for name in ("whole", "grown"))
    assert grown.training_state.read_bytes() == whole.training_state.read_bytes()
    assert grown.metrics.read_bytes() == whole.metrics.read_bytes()


def test_a_student_is_no_teacher(drawn: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got distilpose-xs, .*; choose one of: tokenpose-"):
        train_teacher(configure(drawn, architecture="distilpose-xs"), tmp_path / "run")


def test_a_teacher_is_trained_on_from_another_ones_weights(drawn: Any, tmp_path: Path) -> None:
    start = train_teacher(configure(drawn, epochs=1), tmp_path / "first").weights
    still = {"batch_size": 4, "learning_rate": 1e-30, "schedule": "constant"}
    again = configure(drawn, epochs=1, seed=1, optimisation=still, **{"initial.weights": start})
    result = train_teacher(again, tmp_path / "second")
    old, new = (dict(load_network(path)[0].named_parameters()) for path in (start, result.weights))
    for name, weight in old.items():
        torch.testing.assert_close(new[name], weight, rtol=0, atol=1e-25, msg=name)


def test_a_batch_larger_than_the_people_is_refused(drawn: Any, tmp_path: Path) -> None:
    config = configure(drawn, optimisation={"batch_size": 64})
    with pytest.raises(ConfigError, match=r"people to train on, \d+, got 64; give --batch-size"):
        train_teacher(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
