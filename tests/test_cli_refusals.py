"""How the command line says no: one line and an exit code, but a bug keeps its traceback."""

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner, Result

from cli import main
from pipeline.errors import DistilError
from store_schemas.errors import CorruptError


def distil(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refusal(result: Result) -> str:
    """Return the one line of a refusal, and check that it is one."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("distil: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def raise_in_show(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Result:
    def show(_: object) -> NoReturn:
        raise error

    monkeypatch.setattr("stages.show.show", show)
    monkeypatch.setattr("stages.commands.pictures.require_inputs", lambda _: None)
    return distil("show", "teacher.zarr", "--output", "people.png")


@pytest.mark.parametrize("error", [DistilError("no\nsuch thing"), CorruptError("no such thing")])
def test_an_error_written_for_people_is_one_line_and_exit_code_1(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(raise_in_show(monkeypatch, error)) == "distil: no such thing\n"


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/disk/people.png")
    expected = "distil: /disk/people.png: No space left on device\n"
    assert refusal(raise_in_show(monkeypatch, error)) == expected


@pytest.mark.parametrize("bug", [KeyError("x"), ValueError("x"), FileNotFoundError(2, "x")])
def test_a_bug_keeps_its_traceback(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert raise_in_show(monkeypatch, bug).exception is bug


def test_usage_errors_exit_with_2() -> None:
    for arguments in (["show"], ["fly"], ["evaluate", "--fly"], ["draw-people", "--images", "0"]):
        assert distil(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("option", "text"), [("--input-size", "256"), ("--mean", "0.5,x,0.5"), ("--arm", "runs/a")]
)
def test_a_misspelt_value_is_answered_with_an_example(option: str, text: str) -> None:
    result = distil("compare", option, text)
    assert result.exit_code == 2
    assert f"{text!r} is not" in result.stderr
    assert "for example" in result.stderr


def test_ctrl_c_stops_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli", "draw-people", "--images", "100000", "--output"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "drawn")],
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs, and so all that they start, ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("drawn/images/*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (1, "distil: stopped\n")


def test_ctrl_c_names_resume_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("stages.commands.options.load_config", read)
    result = distil("train-student", "--store", "s", "--run-folder", "r")
    assert refusal(result).endswith("stopped; continue with the same command and --resume\n")


FIRST_MISTAKES: list[tuple[str, str]] = [
    ("cache-teacher", "--annotations, --images, --teacher and --store must be given; --help"),
    ("cache-teacher --annotations a --teacher t --store s", "distil: --images must be given"),
    ("cache-teacher --annotations no.json --images . --teacher m.onnx --store s",
     "no.json: cannot be read: No such file"),
    ("evaluate --teacher m.onnx --annotations no.json --images .", "no.json: cannot be read"),
    ("export --run-folder . --output a.pt", "output must be a file name that ends in .onnx, got"),
    ("export --run-folder . --output a.onnx --val-images .", "--val-images belong together"),
    ("export --run-folder . --output a.onnx --precision int8", "int8 needs --val-annotations and"),
    ("export --run-folder . --output a.onnx --batch some", "--batch (batch_size) is 'some': "),
    ("export --run-folder no --output a.onnx", "no: cannot be read"),
    ("evaluate --annotations no.json", "give exactly one of --run-folder, --weights, --stu"),
    ("evaluate --store s --teacher m.onnx", "--teacher and --store are given"),
    ("evaluate --predictions r --annotations a --images i",
     "--images has no effect with --predictions, only with --run-folder, --weights, --student and"),
    ("evaluate --predictions r", "--predictions needs --annotations, the COCO file"),
    ("evaluate --store s", "s must hold a teacher store"),
    ("compare --annotations a --images .", "distil: --arm must be given"),
    ("compare --annotations no.json --images . --arm a=no-run",
     "no.json: cannot be read: No such file or directory; no-run: cannot be read"),
    ("store info s", "s must hold a teacher store"),
    ("store verify s", "s must hold a teacher store"),
    ("store repair s", "s must hold a teacher store"),
    ("store export s --output poses.json", "s must hold a teacher store"),
    ("benchmark codec", "--annotations, --images and --teacher must be given"),
    ("benchmark crops", "--annotations, --images and --teacher must be given"),
    ("train-student --store s --run-folder r", "--images must be given, except with --from-crops"),
    ("train-student --store s --from-crops --run-folder r", "s must hold a teacher store"),
    ("train-student --annotations a --images . --from-crops --no-distillation --run-folder r",
     "unknown setting data.from_crops (data of annotations); known here: photometric, "),
    ("cache-teacher --annotations a --images . --teacher m --store s --crop-quality 80",
     "crop_quality, crop_subsampling and crop_margin must be left out unless crops are stored"),
    ("benchmark cache", "--annotations, --images and --teacher must be given"),
    ("show s --output people.png", "s must hold a teacher store"),
    ("show s --output people.jpg", "must be a file name that ends in .png"),
    ("train-student --images . --run-folder r", "a teacher store (--store) or --annotations"),
    ("train-student --store s --images . --run-folder r", "s must hold a teacher store"),
    ("train-student --annotations a --images . --run-folder r", "distillation needs --store"),
    ("train-student --store s --images . --run-folder r --preset big",
     "no preset 'big'; presets of train-student: demo, distilpose-l, distilpose-lite, "),
    ("train-student --store s --images . --run-folder r --preset demo-teacher",
     "preset 'demo-teacher' is for train-teacher; presets of train-student: demo, "),
    ("train-teacher --annotations a --images . --run-folder r --preset demo",
     "preset 'demo' is for train-student; presets of train-teacher: demo-teacher"),
    ("train-student --store s --images . --run-folder r --set loss.confidense=0",
     "unknown setting loss.confidense; known here: regression, simulated_heatmap, confidence"),
    ("train-student --store s --images . --run-folder r --set epoch=3",
     "unknown setting epoch; known here: optimisation, seed, epochs"),
    ("train-student --store s --images . --run-folder r --set epochs",
     "not of the form name=value"),
    ("train-student --store s --images . --run-folder r --set epochs=0", "distil: --epochs is 0: "),
    ("train-student --store s --images . --run-folder r --config no.toml",
     "cannot read the configuration no.toml: No such file"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "said"), FIRST_MISTAKES)
def test_a_first_mistake_is_answered_by_one_clear_line_and_leaves_nothing(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refusal(distil(*line.split()))
    assert list(tmp_path.iterdir()) == []


_LEARNS = "--annotations a --images . --run-folder r"
_PREDICTS = "--annotations a --images . --teacher m"
OUT_OF_BOUNDS: list[tuple[str, str, str]] = [
    *((command, option, f"{setting} is {number}: Input should be less than or equal to {bound}")
      for option, number, setting, bound in (
          ("--workers 1000000", 1_000_000, "--workers (num_loader_workers)", 1024),
          ("--threads 1000000", 1_000_000, "--threads (num_threads)", 1024),
          ("--batch-size 1000000000", 1_000_000_000, "(optimisation.batch_size)", 65_536))
      for command in (f"train-student {_LEARNS} --no-distillation", f"train-teacher {_LEARNS}")),
    *((f"{command} {_PREDICTS}", option, message)
      for command in ("cache-teacher --store s", "benchmark codec", "benchmark cache")
      for option, message in (
          ("--views 1000000000", "1000000000: Input should be less than or equal to 10000"),
          ("--std 0,0,0", "teacher_settings.std.0 is 0.0: Input should be greater than 0"))),
    *((f"cache-teacher --store s {_PREDICTS}", option, message) for option, message in (
        ("--std 1,inf,1", "teacher_settings.std.1 is inf: Input should be a finite number"),
        ("--teacher-threads 1000000", "num_threads) is 1000000: Input should be less than"),
        ("--batch-size 1000000000", "1000000000: Input should be less than or equal to 65536"))),
    (f"evaluate {_PREDICTS}", "--set batch_size=1000000000", "less than or equal to 65536"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "option", "message"), OUT_OF_BOUNDS)
def test_a_number_that_no_machine_can_serve_is_refused_with_its_bound(
    command: str, option: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(distil(*command.split(), *option.split()))
    assert list(tmp_path.iterdir()) == []


def test_a_passed_gate_exits_with_0_and_a_missed_one_with_1(tmp_path: Path) -> None:
    from pipeline.drawn.people import write_drawn_people

    truth = write_drawn_people(tmp_path, num_images=2, seed=0)
    results = truth.with_name("results.json")
    results.write_text(_truth_as_results(truth))
    evaluate: tuple[Any, ...] = ("evaluate", "--predictions", results, "--annotations", truth)
    assert distil(*evaluate, "--min-ap", 0.99).exit_code == 0
    results.write_text("[]")
    missed = distil(*evaluate, "--min-ap", 0.99)
    assert missed.exit_code == 1
    assert missed.stderr == "distil: AP is 0.0000, expected at least 0.99 (min_ap)\n"


def _truth_as_results(truth: Path) -> str:
    import json

    annotations = json.loads(truth.read_text())["annotations"]
    keys = ("image_id", "category_id", "keypoints")
    return json.dumps([{**{key: a[key] for key in keys}, "score": 1.0} for a in annotations])
