"""`distil`: parse a command line, build one configuration, call one stage, print its result.

No logic lives here. Stages are imported inside their command, so that `distil --help` costs nothing
of torch, zarr or OpenCV. Exit codes: 0 done, 1 failed, 2 usage.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline.errors import DistilError
from store_schemas.errors import StoreError

Command = TypeVar("Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY = click.Path(path_type=Path)

HELP = """Train small, fast pose networks from a heatmap teacher that runs only once.

\b
  photographs + COCO keypoints
        |
  cache-teacher   the teacher looks at every person once   -> teacher store
        |
  train-student   learns from the store, without teacher   -> run folder
        |
  evaluate        COCO AP of students, teachers, stores    -> evaluation.json

No data at hand? `distil demo` draws its own people and runs all of this in minutes.
"""


class OneLineErrors(click.Group):
    """Turns the errors that are written for people into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DistilError, StoreError) as error:
            click.echo(f"distil: {error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("distil: stopped; go on with the same command and --resume", err=True)
            sys.exit(1)


@click.group(cls=OneLineErrors, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="distil-pose")
def main() -> None:
    pass


def _stack(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Join options that several commands share into one decorator."""

    def decorate(command: Command) -> Command:
        return functools.reduce(lambda inner, option: option(inner), reversed(options), command)

    return decorate


def _size(_: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    """Read HEIGHTxWIDTH."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise click.BadParameter(
            f"{text!r} is not HEIGHTxWIDTH, for example 256x192", param=parameter
        )
    return [int(part) for part in parts]


def _triple(_: click.Context, parameter: click.Parameter, text: str | None) -> list[float] | None:
    """Read three comma-separated numbers."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3:
        raise click.BadParameter(
            f"{text!r} is not three numbers, for example 0.5,0.5,0.5", param=parameter
        )
    return values


_config_options = _stack(
    click.option("--config", "config_file", type=FILE, help="Settings from a TOML file."),
    click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE",
                 help="One setting, for example loss.confidence=0. Repeatable."),
)  # fmt: skip

_teacher_options = _stack(
    click.option("--input-size", callback=_size, metavar="HxW", help="If the model leaves it."),
    click.option("--output-name", help="Which of several outputs holds the heatmaps."),
    click.option("--mean", callback=_triple, metavar="R,G,B", help="Default: ImageNet's."),
    click.option("--std", callback=_triple, metavar="R,G,B", help="Default: ImageNet's."),
    click.option("--pixel-scale", type=float, help="Pixels are multiplied by it. [default: 1/255]"),
    click.option("--channel-order", type=click.Choice(["rgb", "bgr"]), help="Default: rgb."),
    click.option("--heatmap-activation", type=click.Choice(["none", "sigmoid"]),
                 help="sigmoid for a model that gives logits."),
    click.option("--heatmap-gain", type=float, help="Heat is multiplied by it."),
    click.option("--heatmap-frame", type=click.Choice(["msra", "half-pixel", "udp"]),
                 help="Where heatmaps put a crop point. [default: the network's; msra for ONNX]"),
    click.option("--flip-shift", type=int, help="Cells. [default: 1 for msra, else 0]"),
    click.option("--decoding", type=click.Choice(["dark", "quarter", "argmax"]),
                 help="Default: dark."),
    click.option("--teacher-threads", type=int, help="Threads of one forward pass."),
)  # fmt: skip
_TEACHER_FIELDS = {
    "input_size": "input_size_hw",
    "pixel_scale": "scale",
    "teacher_threads": "num_threads",
    **{
        name: name
        for name in (
            *("output_name", "mean", "std", "channel_order", "heatmap_activation"),
            *("heatmap_gain", "heatmap_frame", "flip_shift", "decoding"),
        )
    },
}


def _teacher_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Take the teacher's options out of a command's, under the names of their settings."""
    return {
        f"teacher_settings.{field}": options.pop(option)
        for option, field in _TEACHER_FIELDS.items()
    }


def _say(text: str) -> None:
    click.echo(text)


@main.command("cache-teacher", short_help="People + teacher -> teacher store (stage one).")
@click.option("--annotations", type=FILE, help="COCO keypoint JSON.")
@click.option("--images", type=FOLDER, help="Folder that its file names are relative to.")
@click.option("--teacher", type=ANY, help="A .onnx file, or a run folder of train-teacher.")
@click.option("--store", type=FOLDER, help="The teacher store to write, for example teacher.zarr.")
@click.option("--views", type=int, help="Augmented views of each person.  [default: 8]")
@click.option("--seed", type=int, help="Draws the views.  [default: 0]")
@click.option("--flip-test", is_flag=True, default=None, help="Average with the mirrored crop.")
@_teacher_options
@click.option("--batch-size", type=int, help="Crops of one forward pass.  [default: 32]")
@click.option("--area-fraction", type=float, help="Area = this x box, where the JSON has none.")
@click.option("--skip-bad", is_flag=True, default=None, help="Go on without unreadable images.")
@click.option("--accept-weak-teacher", is_flag=True, default=None, help="Go on although it errs.")
@click.option("--plan", is_flag=True, help="Say what it would cost; write nothing.")
@click.option("--probe", type=int, help="People to measure on.  [default: 64; with --plan: none]")
@click.option("--resume", is_flag=True, help="Go on with a store that was begun.")
@_config_options
def cache_teacher_command(
    plan: bool, probe: int | None, resume: bool, config_file: Path | None,
    overrides: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Let a heatmap teacher look at every person once, and keep what it saw.

    Takes COCO keypoint annotations, their images and a teacher; leaves a teacher store (Zarr), from
    which any number of students learn without the teacher.
    """
    from pipeline.config import load_config
    from stages.cache_teacher import CacheTeacherConfig, cache_teacher, plan_cache

    fields = _teacher_fields(options)
    fields["teacher_settings.flip_test"] = options.pop("flip_test")
    fields["teacher_settings.batch_size"] = options.pop("batch_size")
    fields["people.area_fraction"] = options.pop("area_fraction")
    config = load_config(
        CacheTeacherConfig,
        config_file=config_file,
        overrides=overrides,
        fields={**fields, **options, "probe_people": probe},
    )
    if plan:
        plan_cache(config, with_probe=probe is not None, say=_say)
        return
    result = cache_teacher(config, resume=resume, say=_say)
    views = result.num_people * result.num_views
    click.echo(
        f"{result.store} is complete: {result.num_people} people x {result.num_views} views, "
        f"{result.num_bytes / 1e6:.1f} MB ({result.num_bytes / views:.0f} bytes a view), "
        f"{result.seconds:.0f} s, content {result.content[:12]}"
    )


_training_options = _stack(
    click.option("--epochs", type=int, help="Default: the preset's."),
    click.option("--batch-size", type=int, help="Default: the preset's."),
    click.option("--learning-rate", type=float, help="Default: the preset's."),
    click.option("--seed", type=int, help="Order, initialisation and fresh views.  [default: 0]"),
    click.option("--workers", type=int, help="Processes that load images.  [default: 2]"),
    click.option("--threads", type=int, help="Threads of the training itself."),
    click.option("--resume", is_flag=True, help="Go on after the last finished epoch, exactly."),
)


def _training_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Take the training's options out of a command's, under the names of their settings."""
    names = {
        "batch_size": "optimisation.batch_size",
        "learning_rate": "optimisation.learning_rate",
        "workers": "num_loader_workers",
        "threads": "num_threads",
    }
    return {field: options.pop(option) for option, field in names.items()}


@main.command("train-student", short_help="Teacher store -> run folder (stage two).")
@click.option("--store", type=FOLDER, help="A teacher store; its views are replayed.")
@click.option("--annotations", type=FILE, help="In place of a store: fresh views every epoch.")
@click.option("--images", type=FOLDER, help="The images that the store was made from.")
@click.option(
    "--preset",
    default="distilpose-s",
    show_default=True,
    help="distilpose-s (256x192), distilpose-xs (128x96, for CPU and edge).",
)
@click.option("--run-folder", type=FOLDER, required=True, help="Checkpoints and metrics go here.")
@click.option("--val-annotations", type=FILE, help="Measure AP on these as it trains.")
@click.option("--val-images", type=FOLDER, help="Default: --images.")
@click.option("--no-distillation", is_flag=True, help="Regression alone; score 1 by rule.")
@click.option("--init-weights", type=FILE, help="Start backbone and encoder from a checkpoint.")
@_training_options
@_config_options
def train_student_command(
    preset: str, run_folder: Path, no_distillation: bool, init_weights: Path | None, resume: bool,
    config_file: Path | None, overrides: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Train a regression student from a teacher store; no teacher is needed any more.

    Leaves a run folder: config.json, metrics.jsonl, checkpoints/last.safetensors and
    best.safetensors, evaluation.json.
    """
    from pipeline.config import load_config
    from stages import preset_file
    from stages.terminal import training_progress
    from stages.train_student import TrainStudentConfig, train_student

    fields = _training_fields(options)
    config = load_config(
        TrainStudentConfig,
        preset=preset_file(preset),
        config_file=config_file,
        overrides=overrides,
        fields={
            **fields,
            **options,
            "distillation": False if no_distillation else None,
            "initial.weights": init_weights,
        },
    )
    with training_progress() as progress:
        result = train_student(
            config, run_folder, resume=resume, progress=progress, command=tuple(sys.argv)
        )
    best = "" if result.best_ap is None else f", best AP {result.best_ap:.3f}"
    click.echo(
        f"{run_folder}: {result.epochs} epochs, {result.steps} steps{best}; weights in "
        f"{result.best_weights}"
    )


@main.command("train-teacher", short_help="COCO keypoints -> a heatmap teacher.")
@click.option("--annotations", type=FILE, help="COCO keypoint JSON.")
@click.option("--images", type=FOLDER, help="Folder that its file names are relative to.")
@click.option(
    "--teacher",
    "architecture",
    default="tokenpose-s",
    show_default=True,
    help="tokenpose-s (256x192), tokenpose-xs (128x96).",
)
@click.option("--run-folder", type=FOLDER, required=True, help="Checkpoints and metrics go here.")
@_training_options
@_config_options
def train_teacher_command(
    run_folder: Path, resume: bool, config_file: Path | None, overrides: tuple[str, ...],
    **options: Any,
) -> None:  # fmt: skip
    """Train a heatmap teacher (StemNet TokenPose) on Gaussians around the annotated keypoints."""
    from pipeline.config import load_config
    from stages.terminal import training_progress
    from stages.train_teacher import TrainTeacherConfig, train_teacher

    fields = _training_fields(options)
    config = load_config(
        TrainTeacherConfig,
        config_file=config_file,
        overrides=overrides,
        fields={**fields, **options},
    )
    with training_progress() as progress:
        result = train_teacher(
            config, run_folder, resume=resume, progress=progress, command=tuple(sys.argv)
        )
    click.echo(
        f"{run_folder}: {result.epochs} epochs, {result.steps} steps; weights in {result.weights}"
    )


@main.command("evaluate", short_help="COCO AP of a student, teacher, store or results file.")
@click.option("--run-folder", type=FOLDER, help="A student: its best weights.")
@click.option("--weights", type=FILE, help="A student's weights file.")
@click.option("--teacher", type=ANY, help="A heatmap teacher.")
@click.option("--store", type=FOLDER, help="A store's own outputs of view 0; needs no other input.")
@click.option("--predictions", type=FILE, help="COCO keypoint results of any tool.")
@click.option("--annotations", type=FILE, help="The truth, as COCO keypoint JSON.")
@click.option("--images", type=FOLDER, help="Folder that its file names are relative to.")
@click.option("--detections", type=FILE, help="A detector's boxes in place of the true ones.")
@click.option("--no-flip-test", is_flag=True, help="Look at the plain crop only.")
@click.option("--unclipped-boxes", is_flag=True, help="Do not cut true boxes off at the image.")
@click.option(
    "--keypoint-threshold",
    metavar="SCORE|none",
    help="Scores above it are averaged; none: all.  [default: 0.2]",
)
@_teacher_options
@click.option("--area-fraction", type=float, help="Area = this x box, where the JSON has none.")
@click.option("--min-ap", type=float, help="Exit with 1 below this AP.")
@click.option("--output", type=FOLDER, help="Folder for evaluation.json and results.json.")
@_config_options
def evaluate_command(
    no_flip_test: bool, unclipped_boxes: bool, config_file: Path | None,
    overrides: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Measure COCO AP / AR, AP with score 1, and mean OKS.

    Takes exactly one of --run-folder, --weights, --teacher, --store and --predictions; prints a
    table, and leaves evaluation.json and results.json in --output.
    """
    from rich.console import Console

    from pipeline.config import load_config
    from stages.evaluate import EvaluateConfig, evaluate
    from stages.evaluation_table import print_report

    fields = _teacher_fields(options)
    fields["people.area_fraction"] = options.pop("area_fraction")
    config = load_config(
        EvaluateConfig,
        config_file=config_file,
        overrides=overrides,
        fields={
            **fields,
            **options,
            "flip_test": False if no_flip_test else None,
            "people.clip_boxes": False if unclipped_boxes else None,
        },
    )
    result = evaluate(config)
    print_report(Console(), result.report, result.notes)
    for path in result.written:
        click.echo(f"wrote {path}")
    if result.gate_failed:
        click.echo(f"distil: {result.gate_failed}", err=True)
        sys.exit(1)


@main.command("show", short_help="A picture of what a teacher store holds.")
@click.argument("store", type=FOLDER)
@click.option("--output", type=FILE, required=True, help="The PNG to write.")
@click.option("--images", type=FOLDER, help="Default: the folder that the store was made from.")
@click.option("--people", "num_people", type=int, help="Rows.  [default: 8]")
@click.option("--views", "num_views", type=int, help="Augmented views of each.  [default: 3]")
@click.option("--seed", type=int, help="Chooses the people.  [default: 0]")
def show_command(**options: Any) -> None:
    """Draw people of a teacher store with the truth, the teacher's heatmaps and its keypoints."""
    from pipeline.config import load_config
    from stages.show import ShowConfig, show

    click.echo(f"wrote {show(load_config(ShowConfig, fields=options))}")


@main.command("draw-people", short_help="Drawn people with COCO keypoints, as the demo uses.")
@click.option("--output", type=FOLDER, required=True, help="images/ and annotations.json go here.")
@click.option("--images", "num_images", type=int, default=600, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--first-index",
    type=int,
    default=0,
    show_default=True,
    help="Of the first image; other indices are other people.",
)
def draw_people_command(output: Path, num_images: int, seed: int, first_index: int) -> None:
    """Draw people with COCO keypoint annotations, the same for the same seed and index."""
    from pipeline.drawn.people import write_drawn_people

    click.echo(f"wrote {write_drawn_people(output, num_images, seed, first_index)}")


@main.command("demo", short_help="All of it on drawn people: no data, no GPU, minutes.")
@click.option("--output", type=FOLDER, default=Path("demo"), show_default=True)
@click.option("--thorough", is_flag=True, help="Three seeds and a longer training: an hour.")
@click.option("--seed", type=int, help="Draws the people and starts the trainings.  [default: 0]")
def demo_command(output: Path, thorough: bool, seed: int | None) -> None:
    """Draw people, cache a teacher, train a student with and without it, and compare.

    Leaves the drawn people, the teacher store, both run folders, table.json and people.png in
    --output.
    """
    from rich.console import Console

    from stages.demo import demo

    demo(output, thorough=thorough, seed=seed or 0, console=Console())


if __name__ == "__main__":
    main()
