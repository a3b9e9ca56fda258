"""A sweep trains its arms once, measures each network once, and says what it did."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli import main
from pipeline.ablation import processes
from pipeline.ablation.processes import Job, locked
from pipeline.errors import ConfigError, RunFolderError
from pipeline.evaluation.kept_evaluations import Evaluator
from pipeline.runs.run_folder import RunFolder
from stages.settings.ablate import SWEEPS, AblateConfig, plan_sweep
from tests.support.drawn_people import DrawnPeople

SWEEP = """# Do the teacher's maps help?
baseline = "labels"
person_views = 8
validations = 1
[settings]
optimisation.batch_size = 4
optimisation.warmup_steps = 0
[arms.labels]
distillation = false
[arms."+ maps"]
loss.teacher_regression = 0.1
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP)
    return path


Ablate = Callable[..., Result]


@pytest.fixture
def ablate(sweep: Path, drawn: DrawnPeople, store: Path, tmp_path: Path) -> Ablate:
    """Run the command on drawn people."""

    def run(*more: object) -> Result:
        words = [
            *("ablate", sweep, "--output", tmp_path / "out", "--store", store),
            *("--images", drawn.images, "--val-annotations", drawn.annotations, *more),
        ]
        return CliRunner().invoke(main, [str(word) for word in words])

    return run


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Let the trainings of a sweep run in this process; returns their jobs."""
    done: list[Job] = []

    def run_jobs(
        jobs: Sequence[Job],
        at_once: int,
        lock: int,
        on_end: Callable[[Job, int], None],
        on_wait: Callable[[], None],
    ) -> None:
        for job in jobs:
            done.append(job)
            result = CliRunner().invoke(main, list(job.words))
            job.log.parent.mkdir(parents=True, exist_ok=True)
            job.log.write_text(result.output)
            on_wait()
            on_end(job, result.exit_code)

    monkeypatch.setattr("stages.ablate.run_jobs", run_jobs)
    return done


def refusal(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_a_sweep_is_trained_once_and_measured_once(
    ablate: Ablate, in_process: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Path] = []
    predict = Evaluator._predict_and_measure

    def count(self: Evaluator, weights: Path, on_progress: Callable[[int], None]) -> object:
        measured.append(weights)
        return predict(self, weights, on_progress)

    monkeypatch.setattr(Evaluator, "_predict_and_measure", count)
    first = ablate("--only", "labels")
    assert first.exit_code == 0, first.output
    assert "NOT FINISHED: 1 of 2 trainings" in first.output
    result = ablate()
    assert result.exit_code == 0, result.output
    assert [job.name for job in in_process] == ["labels-seed0", "maps-seed0"]
    assert len(measured) == 2

    out = tmp_path / "out"
    table = json.loads((out / "table.json").read_text())
    assert table["question"] == "Do the teacher's maps help?"
    labels, maps = table["arms"]
    assert labels["oks_difference"] is None
    difference = maps["oks_difference"]
    assert difference["mean"] == pytest.approx(maps["mean_oks"] - labels["mean_oks"])
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert maps["person_views"] == 8
    assert (labels["bytes_per_view"], maps["bytes_per_view"] > 0) == (0, True)
    assert all(run["store_content"] for run in table["runs"])
    assert all(len(run["validation"]) == 1 for run in table["runs"])
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0] == "# Do the teacher's maps help?"
    assert sum(line.startswith(("| labels", "| + maps", "| maps")) for line in lines) == 4
    assert (out / "table.csv").read_text().count("\n") == 3
    assert (out / "runs.csv").read_text().count("\n") == 3

    changed = refusal(ablate("--set", "loss.regression=0.2"))
    assert "began with loss.regression = 0.1, now it is 0.2" in changed
    assert "began with epochs" in refusal(ablate("--person-views", "40"))
    forecast = ablate("--dry-run")
    assert forecast.output.count("finished") == 2
    assert len(in_process) == 2


def test_a_training_that_fails_is_named_and_the_others_are_done(
    ablate: Ablate, in_process: list[Job], sweep: Path
) -> None:
    sweep.write_text(SWEEP + '[arms.broken]\ninitial.weights = "{start}"\n')
    result = ablate("--fill", f"start={sweep}")
    assert result.exit_code == 1
    assert "1 training of 3 failed, the first is broken-seed0:" in result.stderr
    assert [job.name for job in in_process] == ["labels-seed0", "maps-seed0", "broken-seed0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "loss.teacher_regression=1"), "loss.teacher_regression differs between"),
        (("--set", "seed=1"), "seed is that of the sweep's seeds"),
        (("--set", "los.x=1"), "the arm 'labels': unknown setting los"),
        (("--only", "x"), "there is no arm 'x'; arms: labels, + maps"),
        (("--baseline", "x"), "there is no arm 'x'"),
        (("--set", "epochs=3"), "the arm 'labels' has both epochs and person_views"),
        (("--store", "nowhere.zarr"), "nowhere.zarr must hold a teacher store"),
        (("--images", "nowhere"), "the arm 'labels': nowhere: cannot be read"),
        (("--set", "optimisation.batch_size=4000"), "the arm 'labels': optimisation.batch_size"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(
    options: tuple[str, str], message: str, ablate: Ablate, tmp_path: Path
) -> None:
    assert message in refusal(ablate(*options))
    assert not (tmp_path / "out" / "runs").exists()


def test_the_folder_of_a_running_sweep_is_refused(ablate: Ablate, tmp_path: Path) -> None:
    with locked(tmp_path / "out"):
        assert "another distil ablate" in refusal(ablate())


def test_the_lock_lasts_as_long_as_a_process_that_inherits_it(tmp_path: Path) -> None:
    with locked(tmp_path) as lock:
        waiting = subprocess.Popen(["sleep", "30"], pass_fds=(lock,))
    try:
        with pytest.raises(RunFolderError, match="still works in"), locked(tmp_path):
            pass
    finally:
        waiting.kill()
        waiting.wait()
    with locked(tmp_path):
        pass


def test_jobs_run_at_once_and_a_failure_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the three wait for each other, so they end only if both run."""
    monkeypatch.setattr(processes, "command_of", lambda words: [sys.executable, "-c", *words])
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.01)
    meet = (
        "import pathlib, sys, time; own, other = map(pathlib.Path, sys.argv[1:]); own.touch()\n"
        "while not other.exists(): time.sleep(0.01)\nprint('met')"
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    jobs = [
        Job("one", (meet, a, b), tmp_path / "one.txt"),
        Job("two", (meet, b, a), tmp_path / "two.txt"),
        Job("fails", ("raise SystemExit(3)",), tmp_path / "fails.txt"),
    ]
    ended: dict[str, int] = {}
    with locked(tmp_path / "sweep") as lock:
        processes.run_jobs(jobs, 2, lock, lambda job, code: ended.update({job.name: code}))
    assert ended == {"one": 0, "two": 0, "fails": 3}
    assert processes.last_line(jobs[0].log) == "met"


@pytest.mark.parametrize("name", sorted(file.stem for file in SWEEPS.glob("*.toml")))
def test_a_shipped_sweep_asks_a_question_of_settings_that_there_are(name: str) -> None:
    config = AblateConfig(
        sweep=name,
        output=Path("out"),
        fill={"heatmap_start": "a.safetensors", "one": "a", "other": "b"},
        settings={"store": "s.zarr", "images": "images", "val_annotations": "val.json"},
    )
    plan = plan_sweep(config)
    assert plan.sweep.question.endswith("?")
    assert len(plan.runs) == len(plan.arms) * len(plan.sweep.seeds) > 1
    texts = {str(run.config.model_dump(exclude={"seed"})) for run in plan.runs}
    assert len(texts) == len(plan.arms)  # no two arms are the same training


def test_a_sweep_that_is_not_there_is_refused_with_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="shipped: balance, components, ladder"):
        plan_sweep(AblateConfig(sweep="../sweeps/ladder", output=Path("out")))


def test_the_hours_of_a_run_are_those_of_all_its_starts(tmp_path: Path) -> None:
    from pipeline.runs.run_state import hours_of

    folder = RunFolder(tmp_path)
    events = [{"written_at": f"2026-01-02T0{hour}:00:00Z"} for hour in (3, 8)]
    folder.provenance.write_text(json.dumps(events))
    import datetime

    def local(hour: int, minute: int) -> str:
        moment = datetime.datetime(2026, 1, 2, hour, minute, tzinfo=datetime.UTC)
        return f"{moment.astimezone():%Y-%m-%d %H:%M:%S},000 INFO epoch"

    folder.log.write_text("\n".join([local(3, 6), local(3, 30), "a line", local(8, 15)]))
    assert hours_of(folder) == pytest.approx(0.75)
