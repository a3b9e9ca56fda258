"""What a training whose scores learn OKS leaves in the run folder, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.runs.checkpoints import read_info
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
    with pytest.raises(ConfigError, match=r"nothing is distilled; set one, or turn distill"):
        configure(drawn, store=store, annotations=None, distillation=True, loss=loss)
