"""What trainings with scores of OKS, flows, heads and a sixth channel leave in the run folder."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.models.pose_networks import build_student
from pipeline.runs.checkpoints import load_network, read_info
from pipeline.runs.run_folder import RunFolder
from stages.settings.training import TrainStudentConfig
from stages.train_student import train_student


def configure(drawn: Any, **changes: object) -> TrainStudentConfig:
    fields = {
        "architecture": "distilpose-xs",
        "epochs": 1,
        "num_loader_workers": 0,
        "num_threads": 1,
        "device": "cpu",
        "distillation": False,
        "annotations": drawn.annotations,
        "images": drawn.images,
        "optimisation": {"batch_size": 4, "warmup_steps": 0},
        "loss": {"score_target": "oks"},
        **changes,
    }
    return load_config(TrainStudentConfig, fields=fields)


def test_a_plain_student_learns_a_score_from_its_labels(drawn: Any, tmp_path: Path) -> None:
    train_student(configure(drawn), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    info = read_info(folder.last_weights)
    assert info.score_rule == "learned"
    assert info.scored_keypoints
    assert folder.read_metrics()[-1]["confidence"] > 0  # type: ignore[operator]


def test_a_plain_student_whose_score_would_learn_heat_has_none(drawn: Any, tmp_path: Path) -> None:
    train_student(configure(drawn, loss={}), tmp_path / "run")
    info = read_info(RunFolder(tmp_path / "run").last_weights)
    assert (info.score_rule, info.scored_keypoints) == ("one", ())


def test_scores_of_labels_alone_are_no_distillation(drawn: Any, store: Path) -> None:
    loss = {"simulated_heatmap": 0, "score_target": "oks_of_labels"}
    with pytest.raises(ConfigError, match=r"nothing is distilled; set one, or give --no-dist"):
        configure(drawn, store=store, annotations=None, distillation=True, loss=loss)


def test_modules_of_the_criterion_are_resumed_and_not_exported(drawn: Any, tmp_path: Path) -> None:
    """A flow, a heatmap head and the channel of the shear in one training without a teacher."""
    loss = {"regression_kind": "rle", "auxiliary_heatmap": 1, "covariance": 0.1}
    optimisation = {"batch_size": 4, "warmup_steps": 0, "schedule": "constant"}
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    for folder, epochs, resume in ((whole, 2, False), (parts, 1, False), (parts, 2, True)):
        config = configure(drawn, loss=loss, optimisation=optimisation, epochs=epochs)
        train_student(config, folder.root, resume=resume)
    assert parts.training_state.read_bytes() == whole.training_state.read_bytes()
    assert {"regression", "auxiliary_heatmap", "covariance"} <= whole.read_metrics()[-1].keys()
    network, info = load_network(whole.last_weights)
    assert info.has_shear
    expected = build_student("distilpose-xs", 17, with_shear=True)
    assert network.state_dict().keys() == expected.state_dict().keys()
