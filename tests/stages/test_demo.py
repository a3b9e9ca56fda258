"""The demo keeps to its own folder, says when it proves nothing, and draws what was seen."""

import io
import json
from pathlib import Path

import cv2
import pytest
from rich.console import Console

from pipeline.pictures.predictions import NUM_SHOWN, draw_people
from stages import demo as demo_stage
from stages.demo import DemoError, DemoSize, demo
from tests.support.drawn_people import DrawnPeople


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DemoError, match="is not empty; delete it, or choose another --output"):
        demo(tmp_path, thorough=False, seed=0, console=quiet())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("plain", "proves"), [(0.19, False), (0.2, True)])
def test_a_plain_student_below_twice_the_mean_pose_proves_nothing(
    tmp_path: Path, plain: float, proves: bool
) -> None:
    arms = [("mean pose", 0.1), ("teacher", 0.9), ("distilled", 0.5), ("plain", plain)]
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"arms": [{"name": n, "mean_oks": oks} for n, oks in arms]}))
    assert demo_stage._proves_something(table) is proves


def test_the_picture_shows_people_heatmaps_networks_and_truth(
    drawn: DrawnPeople, tmp_path: Path
) -> None:
    draw_people(tmp_path / "people.png", drawn.annotations, drawn.images, demo_stage.TEACHER, {})
    sheet = cv2.imread(str(tmp_path / "people.png"))
    assert sheet is not None
    assert sheet.shape[0] > NUM_SHOWN * 320
    assert sheet.shape[1] > 4 * 240


def test_the_shipped_teacher_is_small(drawn: DrawnPeople) -> None:
    assert demo_stage.TEACHER.stat().st_size < 3_000_000


@pytest.mark.slow
def test_a_tiny_demo_runs_every_command_and_leaves_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_stage, "QUICK", DemoSize(24, 8, epochs=1, seeds=(0,)))
    console = Console(file=io.StringIO(), width=200)
    assert demo(tmp_path / "demo", thorough=False, seed=0, console=console) in (True, False)
    left = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"train", "val", "teacher.zarr", "run-distilled-0", "run-plain-0"} <= left
    assert {"table.json", "people.png", "store.png", "report.html"} <= left
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for command in ("cache-teacher", "show", "train-student", "compare", "report"):
        assert f"$ distil {command}" in shown
