"""A heatmap network on a trunk of timm goes the whole way, and its trunk starts a student."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.caching.settings import CacheTeacherConfig
from pipeline.config import load_config
from pipeline.runs.checkpoints import load_network, save_weights
from pipeline.runs.run_folder import RunFolder
from pipeline.settings import TeacherSettings
from pipeline.teachers.torch_network import TorchNetwork
from stages.cache_teacher import cache_teacher
from stages.evaluate import evaluate
from stages.settings.evaluation import EvaluateTeacher
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig
from stages.train_student import train_student
from stages.train_teacher import train_teacher

NAME = "timm:test_resnet"
FAST: dict[str, object] = {"num_loader_workers": 0, "num_threads": 1, "device": "cpu"}
STILL = {"batch_size": 4, "learning_rate": 1e-30, "schedule": "constant"}


def teacher_config(drawn: Any, epochs: int = 1) -> TrainTeacherConfig:
    fields = {
        "architecture": NAME,
        "annotations": drawn.annotations,
        "images": drawn.images,
        "epochs": epochs,
        "optimisation": {"batch_size": 4, "warmup_steps": 2, "schedule": "constant"},
    }
    return load_config(TrainTeacherConfig, fields={**FAST, **fields})


@pytest.fixture(scope="module")
def trained(drawn: Any, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("timm") / "run"
    train_teacher(teacher_config(drawn), root)
    return RunFolder(root)


def test_a_resumed_teacher_equals_an_uninterrupted_one(
    drawn: Any, trained: RunFolder, tmp_path: Path
) -> None:
    train_teacher(teacher_config(drawn, epochs=2), tmp_path / "whole")
    first = trained.training_state.read_bytes()
    train_teacher(teacher_config(drawn, epochs=2), trained.root, resume=True)
    whole = RunFolder(tmp_path / "whole")
    assert trained.training_state.read_bytes() == whole.training_state.read_bytes() != first


def test_a_teacher_is_cached_and_evaluated(drawn: Any, trained: RunFolder, tmp_path: Path) -> None:
    """Its crops are normalised as its trunk's images were.

    It has learned next to nothing, and heat without peaks is refused, so it is given constant heat.
    """
    network, info = load_network(trained.best_weights)
    with torch.no_grad():
        network.get_parameter("head.final.weight").zero_()
        network.get_parameter("head.final.bias").fill_(0.5)
    weights = tmp_path / "constant.safetensors"
    save_weights(weights, network, info)
    assert (info.kind, info.architecture, info.rgb_std) == ("teacher", NAME, (0.5, 0.5, 0.5))
    preprocessing = TorchNetwork(weights, TeacherSettings()).preprocessing
    assert preprocessing["mean"] == (0.5, 0.5, 0.5)
    stored = {
        "annotations": drawn.annotations,
        "images": drawn.images,
        "teacher": weights,
        "store": str(tmp_path / "t.zarr"),
        "views": 0,
        "accept_weak_teacher": True,
    }
    result = cache_teacher(load_config(CacheTeacherConfig, fields=stored))
    assert result.num_views == 1
    config = EvaluateTeacher(
        annotations=drawn.annotations, images=drawn.images, teacher=weights, output=tmp_path
    )
    assert evaluate(config).report.row.mean_oks is not None


@pytest.mark.parametrize("is_folder", [True, False])
def test_its_trunk_starts_a_student(
    drawn: Any, trained: RunFolder, tmp_path: Path, is_folder: bool
) -> None:
    """The layers up to stride 16 are taken; encoder and head stay as they were drawn."""
    settings = {
        "architecture": NAME,
        "distillation": False,
        "annotations": drawn.annotations,
        "images": drawn.images,
        "epochs": 1,
        "optimisation": STILL,
        "initial.weights": trained.root if is_folder else trained.best_weights,
    }
    said: list[str] = []
    config = load_config(TrainStudentConfig, fields={**FAST, **settings})
    result = train_student(config, tmp_path / "student", say=said.append)
    student, info = load_network(result.last_weights)
    teacher, _ = load_network(trained.best_weights)
    theirs = dict(teacher.named_parameters())
    backbone = [n for n, _ in student.named_parameters() if n.startswith("backbone.")]
    for name in backbone:
        torch.testing.assert_close(student.get_parameter(name), theirs[name], rtol=0, atol=1e-25)
    num_taken = sum(n.startswith("backbone.") for n in student.state_dict())
    num_encoder = sum(n.startswith("encoder.") for n in student.state_dict())
    num_theirs = len(teacher.state_dict())
    (line,) = [line for line in said if line.startswith("initial weights")]
    assert f"{num_taken} of the {num_theirs} tensors of {trained.best_weights}" in line
    assert f"; {num_encoder} of this network's have no counterpart there: encoder." in line
    assert np.allclose(info.rgb_mean, 0.5)
