"""The command line: what it offers, what it costs to ask, and how it says no."""

import errno
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner, Result

from cli import main
from pipeline.errors import DistilError
from store_schemas.errors import CorruptError

CONFIG = {"--config", "--set"}
TEACHER = {
    *("--input-size", "--output-name", "--mean", "--std", "--pixel-scale", "--channel-order"),
    *("--heatmap-activation", "--heatmap-gain", "--heatmap-frame", "--flip-shift", "--decoding"),
    "--teacher-threads",
}
TRAINING = {
    *("--epochs", "--batch-size", "--learning-rate", "--seed", "--workers", "--threads"),
    "--resume",
}
COMMANDS: dict[str, set[str]] = {
    "cache-teacher": {
        *("--annotations", "--images", "--teacher", "--store", "--views", "--seed", "--flip-test"),
        *("--plan", "--probe", "--resume", "--skip-bad", "--accept-weak-teacher", "--grace"),
        *("--workers", "--scheduler", "--profile", "--take-over", "--accept-mended-images"),
        *("--area-fraction", "--batch-size", *TEACHER, *CONFIG),
        *("--teacher-name", "--crops", "--crop-quality", "--tokens"),
    },
    "train-student": {
        *("--store", "--images", "--preset", "--run-folder", "--val-annotations", "--val-images"),
        *("--cache", "--teacher-name"),
        *("--no-distillation", "--annotations", "--init-weights", "--on-corrupt", "--paranoid"),
        "--from-crops",
        *(*TRAINING, *CONFIG),
    },
    "evaluate": {
        *("--run-folder", "--weights", "--teacher", "--store", "--predictions", "--annotations"),
        *("--cache", "--teacher-name"),
        *("--images", "--detections", "--output", "--min-ap", "--no-flip-test"),
        *("--unclipped-boxes", "--keypoint-threshold", "--area-fraction", *TEACHER, *CONFIG),
    },
    "compare": {
        *("--annotations", "--images", "--arm", "--teacher", "--mean-pose", "--output"),
        *(*TEACHER, *CONFIG),
    },
    "show": {"STORE", "--teacher-name", "--output", "--images", "--people", "--views", "--seed"},
    "store": set(),
    "train-teacher": {
        *("--annotations", "--images", "--teacher", "--preset", "--run-folder", "--float16-copy"),
        "--init-weights",
        *(*TRAINING, *CONFIG),
    },
    "draw-people": {"--output", "--images", "--seed", "--first-index"},
    "benchmark": set(),
    "demo": {"--output", "--thorough", "--seed"},
}
BENCHMARKS: dict[str, set[str]] = {
    "cache": {
        *("--annotations", "--images", "--teacher", "--profile", "--people", "--views", "--seed"),
        *("--scratch", "--output", *TEACHER, *CONFIG),
    },
    "codec": {
        *("--annotations", "--images", "--teacher", "--people", "--views", "--seed", "--sweep"),
        *("--output", *TEACHER, *CONFIG),
    },
    "crops": {
        *("--annotations", "--images", "--teacher", "--people", "--store", "--output"),
        *(*TEACHER, *CONFIG),
    },
    "store": {"--store", "--views", "--large-views", "--images", "--output", *CONFIG},
}
MADE_FROM = {"--teacher-name", "--teacher", "--images", "--annotations"}
STORES: dict[str, set[str]] = {
    "info": {"STORE", "--teacher-name", "--json"},
    "verify": {"STORE", *MADE_FROM, "--sample", "--seed", "--digests-only"},
    "repair": {"STORE", *MADE_FROM, "--accept-mended-images", "--take-over"},
    "show": COMMANDS["show"],
    "export": {"STORE", "--teacher-name", "--output"},
}
GROUPS = {"benchmark": BENCHMARKS, "store": STORES}
IN_GROUPS = [(group, name) for group, names in GROUPS.items() for name in names]

PROMISED = """
cache-teacher --annotations train.json --images DIR --teacher m.onnx --views 8 --store teacher.zarr
cache-teacher --annotations a --images DIR --teacher m.onnx --views 8 --store t --flip-test --resume
cache-teacher --annotations a --images DIR --teacher m.onnx --store t --plan
cache-teacher --annotations a --images DIR --teacher m.onnx --store t --workers 4
cache-teacher --annotations a --images D --teacher m.onnx --store t --scheduler tcp://10.0.0.1:8786
train-student --store teacher.zarr --images DIR --preset distilpose-s --run-folder runs/a
train-student --store t --images D --run-folder runs/a --val-annotations v --val-images D --resume
train-student --store teacher.zarr --images DIR --run-folder runs/a --set loss.confidence=0
train-student --store t --images DIR --run-folder runs/a --on-corrupt skip --paranoid --resume
train-student --no-distillation --store teacher.zarr --images DIR --run-folder runs/b
train-student --no-distillation --annotations train.json --images DIR --run-folder runs/c
evaluate --run-folder runs/a --annotations val.json --images DIR
evaluate --run-folder r --annotations a --images D --detections boxes.json --no-flip-test
evaluate --run-folder r --annotations a --images D --min-ap 0.6 --output out/
evaluate --teacher model.onnx --annotations val.json --images DIR
evaluate --store teacher.zarr
evaluate --predictions results.json --annotations val.json
train-teacher --annotations train.json --images DIR --teacher tokenpose-s --run-folder runs/t
show teacher.zarr --output people.png
compare --annotations val.json --images DIR --arm distilled=runs/a --arm plain=runs/b
store info teacher.zarr --json
store verify teacher.zarr --teacher m.onnx --images DIR --annotations train.json --sample 200
store repair teacher.zarr --teacher m.onnx --images DIR --accept-mended-images
store show teacher.zarr --output people.png
store export teacher.zarr --output results.json
benchmark codec --annotations train.json --images DIR --teacher m.onnx --people 300 --output out/
benchmark crops --annotations train.json --images DIR --teacher m.onnx --store t --output out/
cache-teacher --annotations a --images D --teacher m.onnx --store t --crops --crop-quality 85
cache-teacher --annotations a --images D --teacher runs/t --store t --tokens both
train-student --store teacher.zarr --from-crops --run-folder runs/a
benchmark cache --annotations train.json --images DIR --teacher m.onnx --scratch DIR --output out/
demo
"""


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
    return distil("show", "teacher.zarr", "--output", "people.png")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], *([name, "--help"] for name in COMMANDS),
     *([*names, "--help"] for names in IN_GROUPS)],
)  # fmt: skip
def test_asking_for_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, cli\n"
        f"try: cli.main({arguments})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'zarr', 'cv2', 'numpy', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_commands_and_options_are_those_decided_on() -> None:
    """Another option is a decision: make it here too."""
    assert offered(main) == COMMANDS
    for name, commands in GROUPS.items():
        group = main.commands[name]
        assert isinstance(group, click.Group)
        assert offered(group) == commands


def offered(group: click.Group) -> dict[str, set[str]]:
    return {
        name: {
            (parameter.opts[0] if isinstance(parameter, click.Option) else parameter.name.upper())
            for parameter in command.params
            if parameter.name
        }
        for name, command in group.commands.items()
    }


@pytest.mark.parametrize("line", PROMISED.strip().splitlines())
def test_a_promised_command_parses(line: str) -> None:
    name, *arguments = line.split()
    main.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("name", [None, *COMMANDS, *map(" ".join, IN_GROUPS)])
def test_help_fits_80_columns_and_says_what_is_taken_and_left(name: str | None) -> None:
    arguments = [*(name or "").split(), "--help"]
    result = CliRunner().invoke(main, arguments, terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    if name:
        assert "Takes " in result.stdout
        assert "leaves " in result.stdout.lower()
    else:
        commands = result.stdout.split("Commands:")[1].strip().splitlines()
        assert [line.split()[0] for line in commands] == list(COMMANDS)
        assert all("->" in line for line in commands)


def test_the_defaults_that_help_states_are_the_settings_defaults() -> None:
    from pipeline.training.sources import DataConfig
    from stages.cache_teacher import CacheTeacherConfig
    from stages.evaluate import EvaluateConfig
    from stages.show import ShowConfig
    from stages.train_student import TrainStudentConfig

    caching, showing = CacheTeacherConfig.model_fields, ShowConfig.model_fields
    defaults = {
        ("cache-teacher", "views"): caching["views"].default,
        ("cache-teacher", "crop_quality"): caching["crop_quality"].default,
        ("cache-teacher", "seed"): caching["seed"].default,
        ("cache-teacher", "probe"): caching["probe_people"].default,
        ("cache-teacher", "batch_size"): caching["teacher_settings"].default.batch_size,
        ("cache-teacher", "decoding"): caching["teacher_settings"].default.decoding,
        ("cache-teacher", "channel_order"): caching["teacher_settings"].default.channel_order,
        ("train-student", "seed"): TrainStudentConfig.model_fields["seed"].default,
        ("train-student", "workers"): TrainStudentConfig.model_fields["num_loader_workers"].default,
        ("train-student", "on_corrupt"): DataConfig.model_fields["on_corrupt"].default,
        ("evaluate", "keypoint_threshold"): EvaluateConfig.model_fields[
            "keypoint_threshold"
        ].default,
        **{("show", name): showing[name].default for name in ("num_people", "num_views", "seed")},
    }
    for (command, option), default in defaults.items():
        help_text = next(
            parameter.help
            for parameter in main.commands[command].params
            if isinstance(parameter, click.Option) and parameter.name == option
        )
        assert f"[default: {default}" in (help_text or ""), (command, option)


def test_the_defaults_that_the_help_of_verify_states_are_its_settings() -> None:
    from stages.store_verify import StoreVerifyConfig

    help_text = CliRunner().invoke(main, ["store", "verify", "--help"]).stdout
    for name in ("sample", "seed"):
        default = StoreVerifyConfig.model_fields[name].default
        assert re.search(rf"--{name} N [^\[]*\[default: {default}\]", help_text), name


def test_the_defaults_that_a_benchmarks_help_states_are_its_settings() -> None:
    from stages.benchmark_cache import BenchmarkCacheConfig
    from stages.benchmark_codec import BenchmarkCodecConfig

    for name, config in (("codec", BenchmarkCodecConfig), ("cache", BenchmarkCacheConfig)):
        help_text = CliRunner().invoke(main, ["benchmark", name, "--help"]).stdout
        options = {"--people": "people_count", "--views": "views", "--seed": "seed"}
        for option, setting in options.items():
            default = config.model_fields[setting].default
            stated = rf"{option} N [^\[]*\[default: {default}\]"
            assert re.search(stated, help_text), (name, option)


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

    monkeypatch.setattr("pipeline.config.load_config", read)
    result = distil("train-student", "--store", "s", "--run-folder", "r")
    assert refusal(result).endswith("stopped; go on with the same command and --resume\n")


FIRST_MISTAKES: list[tuple[str, str]] = [
    ("cache-teacher", "the setting annotations is required"),
    ("cache-teacher --annotations no.json --images . --teacher m.onnx --store s",
     "no.json: cannot be read: No such file"),
    ("evaluate --teacher m.onnx --annotations no.json --images .", "no.json: cannot be read"),
    ("evaluate --annotations no.json", "give exactly one of run_folder, weights, teacher"),
    ("evaluate --store s --teacher m.onnx", "teacher and store are given"),
    ("evaluate --store s", "s must hold a teacher store"),
    ("compare --annotations a --images .", "the setting arms is required"),
    ("store info s", "s must hold a teacher store"),
    ("store verify s", "s must hold a teacher store"),
    ("store repair s", "s must hold a teacher store"),
    ("store export s --output poses.json", "s must hold a teacher store"),
    ("benchmark codec", "the setting annotations is required"),
    ("benchmark crops", "the setting annotations is required"),
    ("train-student --store s --run-folder r", "images must be given, unless data.from_crops"),
    ("train-student --store s --from-crops --run-folder r", "s must hold a teacher store"),
    ("train-student --annotations a --images . --from-crops --no-distillation --run-folder r",
     "only a teacher store holds crops"),
    ("cache-teacher --annotations a --images . --teacher m --store s --crop-quality 80",
     "crop_quality and crop_subsampling are of crops"),
    ("benchmark cache", "the setting annotations is required"),
    ("show s --output people.png", "s must hold a teacher store"),
    ("show s --output people.jpg", "must be a file name that ends in .png"),
    ("train-student --images . --run-folder r", "a teacher store or annotations"),
    ("train-student --store s --images . --run-folder r", "s must hold a teacher store"),
    ("train-student --annotations a --images . --run-folder r", "distillation needs a teacher"),
    ("train-student --store s --images . --run-folder r --preset big",
     "no preset 'big'; presets of train-student: demo, distilpose-s, distilpose-xs"),
    ("train-student --store s --images . --run-folder r --preset demo-teacher",
     "preset 'demo-teacher' is for train-teacher; presets of train-student: demo, "),
    ("train-teacher --annotations a --images . --run-folder r --preset demo",
     "preset 'demo' is for train-student; presets of train-teacher: demo-teacher"),
    ("train-student --store s --images . --run-folder r --set loss.confidense=0",
     "unknown setting loss.confidense; known here: regression, simulated_heatmap, confidence"),
    ("train-student --store s --images . --run-folder r --set epoch=3",
     "unknown setting epoch; known here: architecture, distillation, store"),
    ("train-student --store s --images . --run-folder r --set epochs",
     "not of the form name=value"),
    ("train-student --store s --images . --run-folder r --set epochs=0", "the setting epochs is 0"),
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
