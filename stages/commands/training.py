"""`distil train-student` and `train-teacher`: parse, call one stage, print its result."""

import sys
from pathlib import Path
from typing import Any

import click

from pipeline.wording import counted
from stages.commands.options import (
    FILE,
    FOLDER,
    cache_option,
    command,
    config_options,
    people_options,
    teacher_names_option,
    training_fields,
    training_options,
    trust_fields,
    trust_options,
)


@command("train-student", short_help="teacher store, images -> run folder with a student")
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
    from stages.commands.terminal import training_progress
    from stages.settings.training import TrainStudentConfig
    from stages.train_student import train_student

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
        f"{run_folder}: {counted(result.epochs, 'epoch')}, {counted(result.steps, 'step')}{best}; "
        f"weights in {result.best_weights}"
    )
    if result.corrupt_views:
        click.echo(result.corrupt_views)


@command("train-teacher", short_help="COCO keypoints, images -> run folder with a teacher")
@people_options
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
    from stages.commands.terminal import training_progress
    from stages.settings.training import TrainTeacherConfig
    from stages.train_teacher import train_teacher

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
        f"{run_folder}: {counted(result.epochs, 'epoch')}, {counted(result.steps, 'step')}; "
        f"weights in {result.weights}"
    )
