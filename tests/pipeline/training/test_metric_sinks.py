"""Figures go to TensorBoard and Weights & Biases by name and step."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.progress import NoProgress
from pipeline.runs.run_folder import RunFolder
from pipeline.training.loop import fit
from pipeline.training.metric_sinks import open_sinks
from stages.settings import training as training_settings
from stages.settings.training import TrainTeacherConfig
from tests.support.tiny_training import tiny_training


class FakeRun:
    """Stands in for a run of wandb, which needs an account."""

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.is_finished = False

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.is_finished = True


def test_wandb_gets_the_figures_of_steps_epochs_and_validations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, begun = FakeRun(), []

    def init(**options: Any) -> FakeRun:
        begun.append(options)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    sinks = open_sinks(tmp_path, {"seed": 1}, tensorboard=False, wandb="poses")
    training = tiny_training(
        sinks=sinks, validate=lambda *_: {"AP": 0.25, "AR": None}, evaluate_every_epochs=2
    )
    fit(training, RunFolder(tmp_path), NoProgress())
    assert (begun[0]["project"], begun[0]["config"]) == ("poses", {"seed": 1})
    epochs = [values for values in run.logged if "epoch/loss" in values]
    assert [values["trained_steps"] for values in epochs] == [4, 8]
    metrics = RunFolder(tmp_path).read_metrics()
    assert epochs[0]["epoch/loss"] == metrics[0]["loss"]
    assert run.logged[-1] == {"validation/AP": 0.25, "trained_steps": 8}
    assert any("step/loss" in values for values in run.logged)
    assert run.is_finished


def test_tensorboard_has_the_losses_of_every_epoch(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    sinks = open_sinks(tmp_path, {}, tensorboard=True, wandb=None)
    fit(tiny_training(sinks=sinks), RunFolder(tmp_path), NoProgress())
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("epoch/loss")]
    lines = RunFolder(tmp_path).read_metrics()
    assert losses == [(line["step"], pytest.approx(line["loss"])) for line in lines]


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(training_settings, "find_spec", lambda _: None)
    config = TrainTeacherConfig(
        annotations=tmp_path,
        images=tmp_path,
        tensorboard=package == "tensorboard",
        wandb="poses" if package == "wandb" else None,
    )
    with pytest.raises(ConfigError, match=rf"--{package} needs .*uv sync --extra {package}"):
        config.require_packages()
