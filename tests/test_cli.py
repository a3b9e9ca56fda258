"""What the command line offers: commands, options and defaults, and what it costs to ask."""

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from cli import main
from pipeline.caching.settings import CacheTeacherConfig
from pipeline.training.settings import ReplayedViewSettings
from stages.settings.benchmark import BenchmarkCacheConfig, BenchmarkCodecConfig
from stages.settings.evaluation import EvaluateStore, StoreVerifyConfig
from stages.settings.pictures import ShowConfig
from stages.settings.training import TrainStudentConfig

CONFIG = {"--config", "--set"}
TEACHER = {
    *("--input-size", "--output-name", "--mean", "--std", "--pixel-scale", "--channel-order"),
    *("--heatmap-activation", "--heatmap-gain", "--heatmap-frame", "--flip-shift", "--decoding"),
    *("--teacher-threads", "--keypoint-order", "--architecture"),
}
TRAINING = {
    *("--epochs", "--batch-size", "--learning-rate", "--seed", "--workers", "--threads"),
    *("--micro-batch", "--device", "--precision", "--compile", "--average-decay", "--sync-bn"),
    *("--checkpoint-minutes", "--tensorboard", "--wandb", "--resume"),
}
COMMANDS: dict[str, set[str]] = {
    "cache-teacher": {
        *("--annotations", "--images", "--teacher", "--store", "--views", "--seed", "--flip-test"),
        *(
            "--plan",
            "--probe",
            "--no-probe",
            "--resume",
            "--skip-bad",
            "--accept-weak-teacher",
            "--grace",
        ),
        *("--workers", "--scheduler", "--profile", "--take-over", "--accept-mended-images"),
        *("--area-fraction", "--batch-size", *TEACHER, *CONFIG),
        *("--teacher-name", "--crops", "--crop-quality", "--crop-margin"),
        *("--tokens", "--token-format"),
        *("--detections", "--detection-threshold", "--only-labelled", "--device", "--precision"),
        *("--student", "--epochs"),
    },
    "train-student": {
        *("--store", "--images", "--preset", "--run-folder", "--val-annotations", "--val-images"),
        *("--cache", "--teacher-name"),
        *("--no-distillation", "--annotations", "--init-weights", "--on-corrupt", "--paranoid"),
        *("--from-crops", "--student", "--pretrained", "--view-policy"),
        *("--data-on-device", "--teacher"),
        *(*TRAINING, *CONFIG),
    },
    "evaluate": {
        *("--run-folder", "--weights", "--teacher", "--store", "--predictions", "--annotations"),
        *("--cache", "--teacher-name", "--student"),
        *("--images", "--detections", "--output", "--min-ap", "--no-flip-test", "--device"),
        *("--unclipped-boxes", "--keypoint-threshold", "--area-fraction", *TEACHER, *CONFIG),
    },
    "compare": {
        *("--annotations", "--images", "--arm", "--teacher", "--mean-pose", "--output"),
        *("--no-cost", "--device"),
        *(*TEACHER, *CONFIG),
    },
    "report": {
        *("RUN_FOLDERS", "--output", "--store", "--teacher-name", "--annotations", "--images"),
        *("--people", "--evaluations", "--seed", "--device", *CONFIG),
    },
    "export": {
        "--student",
        *("--run-folder", "--output", "--precision", "--batch", "--val-annotations"),
        *("--val-images", "--max-ap-loss", "--store", "--images", "--licence", "--push-to-hub"),
        *("--device", "--student"),
        *CONFIG,
    },
    "ablate": {
        *("SWEEP", "--output", "--parallel", "--only", "--seeds", "--person-views", "--baseline"),
        *("--fill", "--dry-run", "--store", "--annotations", "--images", "--val-annotations"),
        *("--val-images", "--init-weights", "--set", "--device"),
    },
    "show": {
        *("STORE", "--teacher-name", "--output", "--images", "--people", "--views", "--seed"),
        *("--run-folder", "--worst", "--teacher", "--annotations", "--attention", "--keypoints"),
        *("--device", *TEACHER),
    },
    "predict": {
        *("INPUTS", "--student", "--detections", "--annotations", "--detector", "--whole-image"),
        *("--output", "--min-box-score", "--detect-every", "--max-frames"),
        *("--min-keypoint-score", "--no-pictures", "--no-flip-test", "--padding"),
        *("--batch-size", "--device", *CONFIG),
    },
    "store": set(),
    "train-teacher": {
        *("--annotations", "--images", "--teacher", "--preset", "--run-folder", "--float16-copy"),
        *("--init-weights", "--pretrained", "--store"),
        *(*TRAINING, *CONFIG),
    },
    "draw-people": {"--output", "--images", "--seed", "--first-index"},
    "benchmark": set(),
    "settings": {"COMMAND_NAME", "--preset"},
    "demo": {"--output", "--thorough", "--seed", "--device"},
}
BENCHMARKS: dict[str, set[str]] = {
    "train": {
        *("--student", "--teacher", "--batch-size", "--loop-batch-size", "--precision", "--rounds"),
        *("--device", "--threads", "--output", *CONFIG),
    },
    "loader": {
        *("--store", "--student", "--people", "--steps", "--batch-size", "--workers", "--threads"),
        *("--device", "--output", *CONFIG),
    },
    "inference": {"--student", "--teacher", "--rounds", "--output", *CONFIG},
    "cache": {
        *("--annotations", "--images", "--teacher", "--profile", "--people", "--views", "--seed"),
        *("--scratch", "--output", "--device", *TEACHER, *CONFIG),
    },
    "codec": {
        *("--annotations", "--images", "--teacher", "--people", "--views", "--seed", "--sweep"),
        *("--output", "--device", *TEACHER, *CONFIG),
    },
    "crops": {
        *("--annotations", "--images", "--teacher", "--people", "--store", "--output"),
        *("--device", *TEACHER, *CONFIG),
    },
    "store": {"--store", "--views", "--large-views", "--images", "--output", *CONFIG},
}
MADE_FROM = {"--teacher-name", "--teacher", "--images", "--annotations", "--detections"}
STORES: dict[str, set[str]] = {
    "info": {"STORE", "--teacher-name", "--json"},
    "verify": {"STORE", *MADE_FROM, "--sample", "--seed", "--digests-only"},
    "repair": {"STORE", *MADE_FROM, "--accept-mended-images", "--take-over"},
    "show": {"STORE", "--teacher-name", "--output", "--images", "--people", "--views", "--seed"},
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
show teacher.zarr --run-folder runs/a --output people.png
show --run-folder runs/a --worst 20 --teacher m.onnx --output worst.png
show --attention runs/a --keypoints left_wrist,nose --output attention.png
compare --annotations val.json --images DIR --arm distilled=runs/a --arm plain=runs/b
report runs/a runs/b --store teacher.zarr --output report.html
report runs/a --annotations val.json --images DIR --output report.html
predict --student runs/a photo.jpg clip.mp4 --detector detector.onnx --output out/
predict --student runs/a DIR --detections boxes.json --annotations val.json --output out/
export --run-folder runs/a --output student.onnx --precision float16 --batch 8
export --run-folder r --output s.onnx --precision int8 --val-annotations v.json --val-images DIR
evaluate --student student.onnx --annotations val.json --images DIR
compare --annotations val.json --images DIR --arm run=runs/a --arm file=student.onnx
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


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], *([name, "--help"] for name in COMMANDS),
     *([*names, "--help"] for names in IN_GROUPS)],
)  # fmt: skip
def test_asking_for_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """The list of all commands loads no settings either."""
    heavy = {"torch", "zarr", "cv2", "numpy", "rich"} | (
        {"pydantic"} if len(arguments) < 2 else set()
    )
    code = (
        "import sys, cli\n"
        f"try: cli.main({arguments})\n"
        "except SystemExit: pass\n"
        f"print(sorted({heavy} & set(sys.modules)))"
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
def test_help_fits_80_columns_and_names_what_is_taken_and_written(name: str | None) -> None:
    arguments = [*(name or "").split(), "--help"]
    result = CliRunner().invoke(main, arguments, terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    if name:
        assert "Takes " in result.stdout
        assert "writes " in result.stdout.lower()
    else:
        commands = result.stdout.split("Commands:")[1].strip().splitlines()
        assert [line.split()[0] for line in commands] == list(COMMANDS)
        assert all("->" in line for line in commands)


def test_the_defaults_that_help_states_are_the_settings_defaults() -> None:
    caching, showing = CacheTeacherConfig.model_fields, ShowConfig.model_fields
    training = TrainStudentConfig.model_fields
    defaults = {
        ("cache-teacher", "--views"): caching["views"].default,
        ("cache-teacher", "--crop-quality"): caching["crop_quality"].default,
        ("cache-teacher", "--seed"): caching["seed"].default,
        ("cache-teacher", "--probe"): caching["probe_people"].default,
        ("cache-teacher", "--batch-size"): caching["teacher_settings"].default.batch_size,
        ("cache-teacher", "--decoding"): caching["teacher_settings"].default.decoding,
        ("cache-teacher", "--channel-order"): caching["teacher_settings"].default.channel_order,
        ("train-student", "--seed"): training["seed"].default,
        ("train-student", "--workers"): training["num_loader_workers"].default,
        ("train-student", "--on-corrupt"): ReplayedViewSettings.model_fields["on_corrupt"].default,
        ("evaluate", "--keypoint-threshold"): str(
            EvaluateStore.model_fields["keypoint_threshold"].default
        ).lower(),
        ("show", "--people"): showing["num_people"].default,
        ("show", "--views"): showing["num_views"].default,
        ("show", "--seed"): showing["seed"].default,
    }
    for (command, option), default in defaults.items():
        help_text = next(
            parameter.help
            for parameter in main.commands[command].params
            if isinstance(parameter, click.Option) and option in parameter.opts
        )
        assert f"[default: {default}" in (help_text or ""), (command, option)


@pytest.mark.parametrize("name", [*COMMANDS, *map(" ".join, IN_GROUPS)])
def test_the_help_of_every_option_is_a_sentence(name: str) -> None:
    for option in command_of(name).params:
        if isinstance(option, click.Option):
            text = (option.help or "").split("  [default: ")[0]
            assert re.match(r"[A-Z]", text), (option.opts, text)
            assert text.endswith("."), (option.opts, text)
            assert text.split()[0] not in {"Of", "That", "Which", "How", "Where"}, text


def command_of(name: str) -> click.Command:
    command: click.Command = main
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return command


def test_the_defaults_that_the_help_of_verify_states_are_its_settings() -> None:
    help_text = CliRunner().invoke(main, ["store", "verify", "--help"]).stdout
    for name in ("sample", "seed"):
        default = StoreVerifyConfig.model_fields[name].default
        assert re.search(rf"--{name} N [^\[]*\[default: {default}\]", help_text), name


def test_the_defaults_that_a_benchmarks_help_states_are_its_settings() -> None:
    for name, config in (("codec", BenchmarkCodecConfig), ("cache", BenchmarkCacheConfig)):
        help_text = CliRunner().invoke(main, ["benchmark", name, "--help"]).stdout
        options = {"--people": "people_count", "--views": "views", "--seed": "seed"}
        for option, setting in options.items():
            default = config.model_fields[setting].default
            stated = rf"{option} N [^\[]*\[default: {default}\]"
            assert re.search(stated, help_text), (name, option)
