"""`distil`: parse a command line, build one configuration, call one stage, print its result.

No logic lives here. Stages are imported inside their command, so that `distil --help` costs nothing
of torch, zarr or OpenCV. Exit codes: 0 done, 1 failed, 2 usage.
"""

import sys
from pathlib import Path
from typing import Any

import click

from stages.benchmark_commands import benchmark
from stages.command_options import (
    ANY,
    FILE,
    FOLDER,
    CommandMap,
    cache_option,
    config_options,
    fail,
    named_paths,
    optional_array_options,
    teacher_fields,
    teacher_name_option,
    teacher_names_option,
    teacher_options,
    training_fields,
    training_options,
    trust_fields,
    trust_options,
)
from stages.store_commands import store

HELP = """Train small, fast pose networks from a heatmap teacher that runs only once.

\b
  photographs + COCO keypoints + heatmap teacher
          |  cache-teacher    the teacher looks at every person, once
          v
    teacher store             the teacher is not needed any more
          |  train-student    as often as you like, anywhere
          v
    run folder                a small network, its settings and metrics
          |  evaluate         COCO AP / AR of students, teachers, stores
          v
    evaluation.json

No data at hand? `distil demo` draws its own people and does all of this in minutes.
"""


@click.group(
    cls=CommandMap,
    help=HELP,
    subcommand_metavar="COMMAND ...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="distil-pose", message="distil %(version)s")
def main() -> None:
    pass


@main.command("cache-teacher", short_help="COCO keypoints, images, teacher -> teacher store")
@click.option("--annotations", type=FILE, help="COCO keypoint JSON.")
@click.option("--images", type=FOLDER, help="Folder that its file names are relative to.")
@click.option("--teacher", type=ANY, help="A .onnx file, or a run folder of train-teacher.")
@click.option("--store", metavar="PATH|URL",
              help="The teacher store to write, e.g. teacher.zarr or s3://bucket/teacher.zarr."
)  # fmt: skip
@click.option("--teacher-name", metavar="NAME",
              help="Under which the store keeps it; a new one joins the store's others.  "
              "[default: teacher]")  # fmt: skip
@click.option("--profile", type=click.Choice(["default", "small", "fast", "lossless-float16"]),
              help="How heatmaps are stored.  [default: default]")  # fmt: skip
@optional_array_options
@click.option("--views", type=int, metavar="N",
              help="Augmented views of each person, beside the plain crop.  [default: 8]"
)  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="Draws the views.  [default: 0]")
@click.option("--flip-test", is_flag=True, default=None,
              help="Average the heatmaps with those of the mirrored crop.")  # fmt: skip
@click.option("--plan", is_flag=True, help="Say what it would cost; write nothing.")
@click.option("--probe", type=int, metavar="N",
              help="People the teacher is tried on first.  [default: 64; with --plan: none]"
)  # fmt: skip
@click.option("--workers", type=int, metavar="N",
              help="Processes of this machine that share the work.  [default: this one]"
)  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS",
              help="Of a running dask cluster that does the work: tcp://HOST:8786.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with a store that was begun.")
@click.option("--take-over", is_flag=True,
              help="Replace another run that seems to be writing this store.")  # fmt: skip
@click.option("--grace", "grace_seconds", type=float, metavar="SECONDS",
              help="On SIGTERM or Ctrl-C, finish the shard if it takes no longer.  [default: 20]"
)  # fmt: skip
@click.option("--skip-bad", is_flag=True, default=None,
              help="Leave out people whose image cannot be decoded, and list them.")  # fmt: skip
@click.option("--accept-mended-images", is_flag=True, default=None,
              help="With --resume: take images that changed and that no shard was written of."
)  # fmt: skip
@click.option("--accept-weak-teacher", is_flag=True, default=None,
              help="Go on although the teacher misses the annotated keypoints.")  # fmt: skip
@click.option("--area-fraction", type=float, metavar="X",
              help="Area of a person without one, as a part of the box.")  # fmt: skip
@click.option("--batch-size", type=int, metavar="N", help="Crops of a forward pass.  [default: 32]")
@teacher_options
@config_options
def cache_teacher_command(
    plan: bool, probe: int | None, resume: bool, take_over: bool, workers: int | None,
    scheduler: str | None, config_file: Path | None, overrides: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Let a heatmap teacher look at every person once, and keep what it saw.

    Takes COCO keypoint annotations, their images and a teacher; leaves a teacher store (Zarr), from
    which any number of students learn without the teacher.
    """
    from pipeline.caching.engines import EngineChoice
    from pipeline.config import load_config
    from stages.cache_teacher import CacheTeacherConfig, cache_teacher
    from stages.plan_cache import plan_cache

    fields = teacher_fields(options)
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
        plan_cache(config, with_probe=probe is not None, say=click.echo)
        return
    result = cache_teacher(
        config,
        resume=resume,
        take_over=take_over,
        engine_choice=EngineChoice(workers, scheduler),
        say=click.echo,
    )
    views = result.num_people * result.num_views * result.num_teachers
    of = f" of {result.num_teachers} teachers" if result.num_teachers > 1 else ""
    click.echo(
        f"{result.store} is complete: {result.num_people} people x {result.num_views} views{of}, "
        f"{result.num_bytes / 1e6:.1f} MB ({result.num_bytes / views:.0f} bytes a view), "
        f"{result.seconds:.0f} s, content {result.content[:12]}"
    )
    if result.breakdown.core_seconds:
        click.echo(result.breakdown.describe())


@main.command("train-student", short_help="teacher store, images -> run folder with a student")
@click.option("--store", metavar="PATH|URL", help="A teacher store; its views are replayed.")
@teacher_names_option
@cache_option
@click.option("--images", type=FOLDER, help="The images that the store was made from.")
@click.option("--preset", metavar="NAME", default="distilpose-s", show_default=True,
              help="distilpose-s (crops of 256x192), distilpose-xs (128x96, for CPU and edge)."
)  # fmt: skip
@click.option("--run-folder", type=FOLDER, required=True, help="Checkpoints and metrics go here.")
@click.option("--val-annotations", type=FILE, help="Measure AP on this truth while training.")
@click.option("--val-images", type=FOLDER, help="[default: --images]")
@click.option("--no-distillation", is_flag=True,
              help="Learn from the annotated keypoints alone; every pose has score 1 by rule."
)  # fmt: skip
@click.option("--annotations", type=FILE,
              help="With --no-distillation, in place of a store: new views every epoch."
)  # fmt: skip
@click.option("--init-weights", type=FILE,
              help="Start backbone and encoder from these weights of a teacher or student."
)  # fmt: skip
@click.option("--from-crops", is_flag=True, default=None,
              help="Learn from the crops that the store holds; needs no --images.")  # fmt: skip
@trust_options
@training_options
@config_options
def train_student_command(
    preset: str, run_folder: Path, no_distillation: bool, init_weights: Path | None, resume: bool,
    config_file: Path | None, overrides: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Train a regression student from a teacher store; the teacher is not needed.

    Takes a teacher store and its images; leaves a run folder: config.json, metrics.jsonl, log.txt,
    checkpoints/last.safetensors and best.safetensors.
    """
    from pipeline.config import load_config
    from stages import preset_file
    from stages.terminal import training_progress
    from stages.train_student import TrainStudentConfig, train_student

    config = load_config(
        TrainStudentConfig,
        preset=preset_file(preset),
        config_file=config_file,
        overrides=overrides,
        fields={
            **training_fields(options),
            **trust_fields(options),
            "data.store_cache": options.pop("store_cache"),
            "data.from_crops": options.pop("from_crops"),
            "data.teachers": options.pop("teacher_names"),
            **options,
            "distillation": False if no_distillation else None,
            "initial.weights": init_weights,
        },
    )
    with training_progress() as progress:
        result = train_student(
            config,
            run_folder,
            resume=resume,
            progress=progress,
            command=tuple(sys.argv),
            say=click.echo,
        )
    best = "" if result.best_ap is None else f", best AP {result.best_ap:.3f}"
    click.echo(
        f"{run_folder}: {result.epochs} epochs, {result.steps} steps{best}; weights in "
        f"{result.best_weights}"
    )
    if result.corrupt_views:
        click.echo(result.corrupt_views)


@main.command("evaluate", short_help="student, teacher, store or results -> AP, evaluation.json")
@click.option("--run-folder", type=FOLDER, help="A student: the best weights of its run.")
@click.option("--weights", type=FILE, help="A student's weights file.")
@click.option("--teacher", type=ANY, help="A .onnx file, or a run folder of train-teacher.")
@click.option("--store", metavar="PATH|URL",
              help="A store's own outputs of view 0; needs no other input.")  # fmt: skip
@teacher_name_option
@cache_option
@click.option("--predictions", type=FILE, help="COCO keypoint results of any tool, as they are.")
@click.option("--annotations", type=FILE, help="The truth, as COCO keypoint JSON.")
@click.option("--images", type=FOLDER, help="Folder that its file names are relative to.")
@click.option("--detections", type=FILE, help="A detector's boxes in place of the true ones.")
@click.option("--output", type=FOLDER, help="Folder for evaluation.json and results.json.")
@click.option("--min-ap", type=float, metavar="X", help="Exit with 1 below this AP.")
@click.option("--no-flip-test", is_flag=True, help="Look at the plain crop only.")
@click.option("--unclipped-boxes", is_flag=True, help="Do not cut true boxes off at the image.")
@click.option("--keypoint-threshold", metavar="SCORE|none",
              help="Keypoint scores above it are averaged; none: all.  [default: 0.2]")  # fmt: skip
@click.option("--area-fraction", type=float, metavar="X",
              help="Area of a person without one, as a part of the box.")  # fmt: skip
@teacher_options
@config_options
def evaluate_command(
    no_flip_test: bool, unclipped_boxes: bool, config_file: Path | None,
    overrides: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Measure COCO AP / AR, AP with score 1, and mean OKS.

    Takes exactly one of --run-folder, --weights, --teacher, --store and --predictions; prints a
    table, and leaves evaluation.json and results.json in --output (of a run: evaluation.json in its
    folder).
    """
    from rich.console import Console

    from pipeline.config import load_config
    from stages.evaluate import EvaluateConfig, evaluate
    from stages.evaluation_table import print_report
    from stages.terminal import evaluation_progress

    fields = teacher_fields(options)
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
    with evaluation_progress() as on_progress:
        result = evaluate(config, on_progress)
    print_report(Console(), result.report, result.notes)
    for path in result.written:
        click.echo(f"wrote {path}")
    if result.gate_failed:
        fail(result.gate_failed)


@main.command("compare", short_help="runs of students -> one table, paired differences")
@click.option("--annotations", type=FILE, help="The truth, as COCO keypoint JSON.")
@click.option("--images", type=FOLDER, help="Folder that its file names are relative to.")
@click.option("--arm", "arms", multiple=True, metavar="NAME=RUN_FOLDER", callback=named_paths,
              help="A run of train-student; the same NAME again is another seed. Repeatable."
)  # fmt: skip
@click.option("--teacher", type=ANY, help="Also measure a .onnx file or run of train-teacher.")
@click.option("--mean-pose", type=FILE, help="Also the mean pose of these training annotations.")
@click.option("--output", type=FILE, help="JSON file for all figures.")
@teacher_options
@config_options
def compare_command(config_file: Path | None, overrides: tuple[str, ...], **options: Any) -> None:
    """Measure several students on the same people, side by side and person by person.

    Takes run folders and the truth; prints AP, AP with score 1, mean OKS and cost of each arm, and
    the first arm's difference from the others with a 95 % interval; leaves --output.
    """
    from rich.console import Console

    from pipeline.config import load_config
    from stages.compare import CompareConfig, compare
    from stages.comparison_table import print_comparison

    fields = teacher_fields(options)
    config = load_config(
        CompareConfig, config_file=config_file, overrides=overrides, fields={**fields, **options}
    )
    found = compare(config)
    print_comparison(Console(), found.arms, found.differences, found.num_people)
    if config.output is not None:
        click.echo(f"wrote {config.output}")


@main.command("show", short_help="teacher store -> a picture of what it holds")
@click.argument("store")
@teacher_name_option
@click.option("--output", type=FILE, required=True, help="The PNG to write.")
@click.option("--images", type=FOLDER, help="[default: the folder that the store was made from]")
@click.option("--people", "num_people", type=int, metavar="N", help="Rows.  [default: 8]")
@click.option("--views", "num_views", type=int, metavar="N",
              help="Augmented views of each person.  [default: 3]")  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="Chooses the people.  [default: 0]")
def show_command(**options: Any) -> None:
    """Draw people of a teacher store: truth, heatmaps and the teacher's keypoints, by view.

    Takes a STORE and its images; leaves a PNG.
    """
    from pipeline.config import load_config
    from stages.show import ShowConfig, show

    click.echo(f"wrote {show(load_config(ShowConfig, fields=options))}")


main.add_command(store)


@main.command("train-teacher", short_help="COCO keypoints, images -> run folder with a teacher")
@click.option("--annotations", type=FILE, help="COCO keypoint JSON.")
@click.option("--images", type=FOLDER, help="Folder that its file names are relative to.")
@click.option("--teacher", "architecture", metavar="NAME",
              help="tokenpose-s (crops of 256x192), tokenpose-xs (128x96).  [default: tokenpose-s]"
)  # fmt: skip
@click.option("--preset", metavar="NAME", help="demo-teacher: as the demo's teacher was made.")
@click.option("--run-folder", type=FOLDER, required=True, help="Checkpoints and metrics go here.")
@click.option("--init-weights", type=FILE,
              help="Start from these weights of another teacher, e.g. of other photographs."
)  # fmt: skip
@click.option("--float16-copy", type=FILE, help="Also write the weights here, at half the size.")
@training_options
@config_options
def train_teacher_command(
    preset: str | None, run_folder: Path, init_weights: Path | None, resume: bool,
    config_file: Path | None, overrides: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Train a heatmap teacher (StemNet TokenPose) on Gaussians around the annotated keypoints.

    Takes COCO keypoint annotations and their images; leaves a run folder, which cache-teacher and
    evaluate take as --teacher.
    """
    from pipeline.config import load_config
    from stages import preset_file
    from stages.terminal import training_progress
    from stages.train_teacher import TrainTeacherConfig, train_teacher

    config = load_config(
        TrainTeacherConfig,
        preset=preset_file(preset, "teacher") if preset else None,
        config_file=config_file,
        overrides=overrides,
        fields={**training_fields(options), **options, "initial.weights": init_weights},
    )
    with training_progress() as progress:
        result = train_teacher(
            config,
            run_folder,
            resume=resume,
            progress=progress,
            command=tuple(sys.argv),
            say=click.echo,
        )
    click.echo(
        f"{run_folder}: {result.epochs} epochs, {result.steps} steps; weights in {result.weights}"
    )


@main.command("draw-people", short_help="a seed -> drawn people: images, COCO keypoints")
@click.option("--output", type=FOLDER, required=True, help="images/ and annotations.json go here.")
@click.option("--images", "num_images", type=click.IntRange(min=1), metavar="N", default=600,
              show_default=True)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True)
@click.option("--first-index", type=click.IntRange(min=0), metavar="N", default=0,
              show_default=True,
              help="Of the first image; other indices are other people.")  # fmt: skip
def draw_people_command(output: Path, num_images: int, seed: int, first_index: int) -> None:
    """Draw people with COCO keypoint annotations: the same for the same seed and index.

    Takes nothing; leaves images/ and annotations.json in --output.
    """
    from pipeline.drawn.people import write_drawn_people

    click.echo(f"wrote {write_drawn_people(output, num_images, seed, first_index)}")


main.add_command(benchmark)


@main.command("demo", short_help="nothing -> all of it on drawn people, in minutes")
@click.option("--output", type=FOLDER, default=Path("demo"), show_default=True)
@click.option("--thorough", is_flag=True, help="Three seeds and more people; takes far longer.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
              help="Draws the people and starts the trainings.")  # fmt: skip
def demo_command(output: Path, thorough: bool, seed: int) -> None:
    """Draw people, cache a teacher, train a student with and without it, and compare.

    Takes nothing: no data, no download, no GPU. Leaves the drawn people, the teacher store, both
    run folders, table.json, store.png and people.png in --output.
    """
    from rich.console import Console

    from stages.demo import demo

    demo(output, thorough=thorough, seed=seed, console=Console())


if __name__ == "__main__":
    main()
