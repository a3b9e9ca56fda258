"""What a training tells: before its first step, at each validation, and how much time is left."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from pipeline.coco.read_people import read_people
from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.evaluation.comparison import mean_pose_arm
from pipeline.settings import PeopleSettings
from pipeline.training import preflight
from stages.commands.terminal import caching_progress, training_progress
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig
from stages.train_student import train_student
from stages.train_teacher import train_teacher

SETTINGS = {
    "epochs": 2,
    "num_loader_workers": 0,
    "num_threads": 1,
    "device": "cpu",
    "optimisation": {"batch_size": 4, "warmup_steps": 500},
}


def student(drawn: Any) -> TrainStudentConfig:
    fields = {
        "architecture": "distilpose-xs",
        "distillation": False,
        "evaluate_every_epochs": 3,
        "annotations": drawn.annotations,
        "images": drawn.images,
        "val_annotations": drawn.annotations,
    }
    return load_config(TrainStudentConfig, fields={**SETTINGS, **fields})


def test_a_student_is_measured_beside_the_mean_pose(drawn: Any, tmp_path: Any) -> None:
    said: list[str] = []
    run = tmp_path / "run"
    train_student(student(drawn), run, say=said.append)
    people = read_people(drawn.annotations, drawn.images, PeopleSettings())
    expected = mean_pose_arm(people, people).figures
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (validation,) = (line for line in lines if line["event"] == "validation")
    assert validation["mean_pose_oks"] == pytest.approx(expected.mean_oks)
    assert validation["mean_pose_pck"] == pytest.approx(expected.mean_pck)
    assert said[-1].startswith("epoch 2: AP ")
    assert f"no better than the mean pose's {expected.mean_oks:.3f}: the student has" in said[-1]
    log = (run / "log.txt").read_text()
    assert said[-1].split(", ", 1)[1] in log
    before = said[:-1]
    for beginning in (
        "the learning rate never leaves its warm-up of 500 steps",
        "the student is validated once, at the end",
        "CPU, 1 thread: distilpose-xs of 0.8 million parameters needs about ",
    ):
        (line,) = (line for line in before if line.startswith(beginning))
        assert line in log


def test_what_does_not_fit_is_refused_before_there_is_a_run_folder(
    drawn: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "free_memory", lambda: 1_000_000)
    with pytest.raises(ConfigError, match=r"1 MB are free: give a smaller --preset"):
        train_student(student(drawn), tmp_path / "run")
    fields = {"architecture": "tokenpose-xs", "annotations": drawn.annotations}
    config = load_config(TrainTeacherConfig, fields={**SETTINGS, **fields, "images": drawn.images})
    with pytest.raises(ConfigError, match=r"1 MB are free: give a smaller --teacher"):
        train_teacher(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("progress_of", [training_progress, caching_progress])
def test_the_time_left_is_shown_however_slow_a_step_is(progress_of: Any) -> None:
    now = [0.0]
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, get_time=lambda: now[0])
    with progress_of(console) as progress:
        for done in range(4):
            progress.update(done, 100)
            now[0] += 100.0
    assert "2:41:40" in file.getvalue()  # 97 steps of 100 s
