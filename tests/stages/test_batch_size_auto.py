"""`--batch-size auto`: the size that is found stands in the run's settings, and is kept there."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli import main
from pipeline.training import largest_batch


def test_the_size_that_was_found_is_recorded_and_kept(
    drawn: Any, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = [
        *("train-student", "--student", "distilpose-xxs", "--store", str(store)),
        *("--images", str(drawn.images), "--run-folder", str(run), "--epochs", "1"),
        *("--workers", "0", "--threads", "1", "--device", "cpu", "--batch-size", "auto"),
    ]
    found = CliRunner().invoke(main, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    assert "batch: 8 crops, the largest power of two that fits" in found.output
    settings = json.loads((run / "config.json").read_text())
    assert settings["optimisation"]["batch_size"] == 8

    def refuse(*_: Any) -> None:
        raise AssertionError("the size was to be found again")

    monkeypatch.setattr(largest_batch, "largest_batch", refuse)
    words[words.index("--epochs") + 1] = "2"
    again = CliRunner().invoke(main, [*words, "--resume"], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert json.loads((run / "config.json").read_text())["epochs"] == 2
