"""``--run-folder R --resume`` goes on with the settings that the run began with."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from cli import main
from pipeline.runs.run_folder import RunFolder


def train_teacher(run_folder: Path, *words: str) -> Result:
    return CliRunner().invoke(
        main, ["train-teacher", "--run-folder", str(run_folder), *words], catch_exceptions=False
    )


def test_a_run_goes_on_without_any_other_option(drawn: Any, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    people = ["--annotations", str(drawn.annotations), "--images", str(drawn.images)]
    how = ["--teacher", "tokenpose-xs", "--batch-size", "4", "--workers", "0", "--threads", "1"]
    few = ["--set", "optimisation.warmup_steps=3", "--device", "cpu", "--epochs", "1"]
    assert train_teacher(run.root, *people, *how, *few).exit_code == 0
    begun = json.loads(run.config.read_bytes())

    other = train_teacher(run.root, "--resume", "--learning-rate", "0.5")
    assert other.exit_code == 1
    assert "began with optimisation.learning_rate = 0.001, now it is 0.5" in other.stderr
    before = run.training_state.read_bytes()
    assert train_teacher(run.root, "--resume").exit_code == 0
    assert run.training_state.read_bytes() == before  # all epochs are done
    assert train_teacher(run.root, "--resume", "--epochs", "2").exit_code == 0
    assert json.loads(run.config.read_bytes()) == {**begun, "epochs": 2}
    assert [line["epoch"] for line in run.read_metrics()] == [1, 2]


def test_without_a_run_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    result = train_teacher(tmp_path / "none", "--resume")
    assert result.exit_code == 1
    assert "there is no run in" in result.stderr
    assert result.stderr.count("\n") == 1
