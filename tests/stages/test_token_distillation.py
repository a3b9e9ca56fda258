"""A student that learns from stored tokens, with the projector or without."""

from pathlib import Path
from typing import Any

import pytest

import stages
from pipeline.caching.settings import CacheTeacherConfig
from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.models.pose_networks import build_student
from pipeline.runs.checkpoints import load_network
from pipeline.runs.run_folder import RunFolder
from stages.cache_teacher import cache_teacher
from stages.settings.training import TrainStudentConfig
from stages.train_student import train_student

DEMO_TEACHER = Path(stages.__file__).parent / "demo_teacher.safetensors"


@pytest.fixture(scope="module")
def token_store(drawn: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An augmented view of every drawn person, and the tokens of the demo's teacher."""
    store = tmp_path_factory.mktemp("tokens") / "teacher.zarr"
    fields = {
        "annotations": drawn.annotations,
        "images": drawn.images,
        "teacher": DEMO_TEACHER,
        "store": str(store),
        "views": 1,
        "tokens": "both",
        "accept_weak_teacher": True,
    }
    cache_teacher(load_config(CacheTeacherConfig, fields=fields))
    return store


def configure(drawn: Any, store: Path, **changes: object) -> TrainStudentConfig:
    fields = {
        "architecture": "distilpose-xs",
        "epochs": 2,
        "num_loader_workers": 0,
        "num_threads": 1,
        "device": "cpu",
        "store": str(store),
        "images": drawn.images,
        "data": {"view_policy": "replay"},
        "optimisation": {"batch_size": 4, "warmup_steps": 0, "schedule": "constant"},
        "loss": {"keypoint_token": 0.1, "visual_token": 0.1},
        **changes,
    }
    return load_config(TrainStudentConfig, fields=fields)


def test_token_terms_fall_and_a_projector_is_resumed_but_not_exported(
    drawn: Any, token_store: Path, tmp_path: Path
) -> None:
    loss = {"keypoint_token": 0.1, "visual_token": 0.1, "token_projector": True}
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    train_student(configure(drawn, token_store, loss=loss), whole.root)
    train_student(configure(drawn, token_store, loss=loss, epochs=1), parts.root)
    train_student(configure(drawn, token_store, loss=loss), parts.root, resume=True)
    assert parts.training_state.read_bytes() == whole.training_state.read_bytes()
    for name in ("keypoint_token", "visual_token"):
        first, last = (line for line in whole.read_metrics() if line["event"] == "epoch")
        assert 0 < last[name] < first[name]  # type: ignore[operator]
    network, _ = load_network(whole.last_weights)
    assert set(network.state_dict()) == set(build_student("distilpose-xs", 17).state_dict())


def test_tokens_of_the_teachers_shape_need_no_projector_and_others_do(
    drawn: Any, token_store: Path, tmp_path: Path
) -> None:
    train_student(configure(drawn, token_store, epochs=1), tmp_path / "run")
    assert RunFolder(tmp_path / "run").read_metrics()[-1]["visual_token"] > 0  # type: ignore[operator]
    other = configure(drawn, token_store, architecture="distilpose-s")
    with pytest.raises(ConfigError, match=r"128 channels, .* got 192; .* set loss.token_projector"):
        train_student(other, tmp_path / "other")
    carried = configure(drawn, token_store, data={"view_policy": "carry"})
    with pytest.raises(ConfigError, match=r"cannot be carried into new ones; set data.view_pol"):
        train_student(carried, tmp_path / "carried")
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "carried").exists()
