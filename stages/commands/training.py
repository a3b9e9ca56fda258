"""`distil train-student` and `train-teacher`: parse, call one stage, print its result."""

import functools
import sys
from pathlib import Path
from typing import Any

import click

from pipeline.wording import counted
from stages import preset_file
from stages.commands.command_map import command
from stages.commands.options import (
    FOLDER,
    config_options,
    configured,
    people_options,
    setting_option,
    switch_off,
    teacher_names_option,
    training_options,
)
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig

_student = functools.partial(setting_option, TrainStudentConfig)
_teacher = functools.partial(setting_option, TrainTeacherConfig)
_checks = functools.partial(_student, heading="Checks of store and images")
_run_folder_option = click.option(
    "--run-folder", type=FOLDER, required=True, help="Folder for checkpoints and metrics.",
)  # fmt: skip


@command("train-student")
@_student("store", "--store")
@teacher_names_option(TrainStudentConfig, "data.teachers")
@_student("data.store_cache", "--cache")
@_student("images", "--images")
@click.option("--preset", metavar="NAME", default="distilpose-s", show_default=True,
              help="Name of the shipped settings: distilpose-s (crops of 256x192) or distilpose-xs "
              "(128x96, for CPU and edge).")  # fmt: skip
@_run_folder_option
@_student("val_annotations", "--val-annotations")
@_student("val_images", "--val-images")
@switch_off(
    TrainStudentConfig, "distillation", "--no-distillation",
    help="Learn from the annotated keypoints alone; the score of every pose is 1 by rule.",
)  # fmt: skip
@_student("annotations", "--annotations")
@_student("initial.weights", "--init-weights")
@_student("data.from_crops", "--from-crops")
@_checks("data.on_corrupt", "--on-corrupt")
@_checks("data.paranoid", "--paranoid")
@training_options(TrainStudentConfig, default_text="the preset's")
@config_options
def train_student_command(preset: str, run_folder: Path, resume: bool, **options: Any) -> None:
    """Train a regression student from a teacher store; the teacher is not needed.

    Takes a teacher store and its images; writes a run folder: config.json, metrics.jsonl, log.txt,
    checkpoints/last.safetensors and best.safetensors.
    """
    config = configured(TrainStudentConfig, options, preset=preset_file(preset))

    from stages.commands.terminal import training_progress
    from stages.train_student import train_student

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


@command("train-teacher")
@people_options(TrainTeacherConfig)
@_teacher("architecture", "--teacher")
@click.option("--preset", metavar="NAME",
              help="Name of shipped settings: demo-teacher, those of the demo's teacher.",
)  # fmt: skip
@_run_folder_option
@_teacher("initial.weights", "--init-weights")
@_teacher("float16_copy", "--float16-copy")
@training_options(TrainTeacherConfig)
@config_options
def train_teacher_command(
    preset: str | None, run_folder: Path, resume: bool, **options: Any
) -> None:
    """Train a heatmap teacher (StemNet TokenPose) on Gaussians around the annotated keypoints.

    Takes COCO keypoint annotations and their images; writes a run folder, which cache-teacher and
    evaluate take as --teacher.
    """
    file = preset_file(preset, "teacher") if preset else None
    config = configured(TrainTeacherConfig, options, preset=file)

    from stages.commands.terminal import training_progress
    from stages.train_teacher import train_teacher

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
