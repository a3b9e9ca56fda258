"""Laws of a run folder: refuses what is not its own, and keeps whole lines only."""

from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.config import StageConfig
from pipeline.errors import RunFolderError
from pipeline.runs.run_folder import RunFolder


class Run(StageConfig):
    resumable_changes: ClassVar[frozenset[str]] = frozenset({"epochs"})

    epochs: int = 1
    speed: float = 1.0


def test_a_run_begins_in_an_empty_or_absent_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        folder = RunFolder(tmp_path / name)
        folder.check(Run(), resume=False)
        folder.begin(Run(speed=2.0), {}, resume=False)
        assert folder.read_config(Run) == Run(speed=2.0)


def test_checking_writes_nothing(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").check(Run(), resume=False)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused_without_offering_resume(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match="already holds other files; choose another") as caught:
        RunFolder(tmp_path).check(Run(), resume=False)
    assert "--resume" not in str(caught.value)


def test_only_settings_that_may_change_differ_on_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(Run(), {}, resume=False)
    folder.check(Run(epochs=9), resume=True)
    with pytest.raises(RunFolderError, match=r"began with speed = 1\.0, now it is 2\.0"):
        folder.check(Run(speed=2.0), resume=True)


def test_metrics_are_cut_at_an_epoch_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epoch in (1, 2, 3):
        folder.append_metrics({"epoch": epoch, "loss": 0.1 * epoch})
    before = folder.metrics.read_bytes()
    folder.truncate_metrics(3)
    assert folder.metrics.read_bytes() == before
    with folder.metrics.open("a") as file:
        file.write('{"epoch": 4')
    folder.truncate_metrics(2)
    assert [line["epoch"] for line in folder.read_metrics()] == [1, 2]


def test_a_figure_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        RunFolder(tmp_path).append_metrics({"step": 1, "loss": float("nan")})
