"""`distil cache-teacher`, `train-student` and `train-teacher`: parse, call one stage, print."""

import functools
import sys
from pathlib import Path
from typing import Any

import click

from pipeline.caching.settings import CacheTeacherConfig, ComparedTraining
from pipeline.config import CONFIG_FILE
from pipeline.errors import ConfigError
from pipeline.machine import is_first_process
from pipeline.wording import counted
from stages import preset_file
from stages.commands.command_map import command
from stages.commands.options import (
    FOLDER,
    config_options,
    configured,
    device_option,
    names,
    people_options,
    setting_option,
    switch_off,
    teacher_options,
    training_options,
)
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig

_option = functools.partial(setting_option, CacheTeacherConfig)
_unlabelled = functools.partial(_option, heading="People without labels")
_stored = functools.partial(_option, heading="Other stored arrays")
_student = functools.partial(setting_option, TrainStudentConfig)
_teacher = functools.partial(setting_option, TrainTeacherConfig)
_checks = functools.partial(_student, heading="Checks of store and images")
_run_folder_option = click.option(
    "--run-folder", type=FOLDER, required=True, help="Folder for checkpoints and metrics.",
)  # fmt: skip


@command("cache-teacher")
@people_options(CacheTeacherConfig)
@_unlabelled("people.detections", "--detections")
@_unlabelled("people.detection_threshold", "--detection-threshold")
@_unlabelled("people.only_labelled", "--only-labelled")
@_option("teacher", "--teacher")
@_option("store", "--store", metavar="PATH|URL")
@_option("teacher_name", "--teacher-name")
@_option("profile", "--profile")
@_stored("crops", "--crops")
@_stored("crop_quality", "--crop-quality", metavar="Q")
@_stored("crop_margin", "--crop-margin", metavar="FRACTION")
@_stored("tokens", "--tokens")
@_stored("token_format", "--token-format")
@_option("views", "--views")
@_option("seed", "--seed")
@_option("teacher_settings.flip_test", "--flip-test")
@click.option("--plan", is_flag=True, help="Print what the store would cost; write nothing.")
@_option("probe_people", "--probe")
@click.option("--no-probe", is_flag=True,
              help="Estimate from typical stores, with --plan, and do not try the teacher.",
)  # fmt: skip
@_option("training.student", "--student", metavar="NAME")
@_option("training.epochs", "--epochs")
@click.option("--workers", type=int, metavar="N",
              help="Number of processes of this machine that share the work.  "
              "[default: this process]")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS",
              help="Address of a running dask cluster that does the work: tcp://HOST:8786.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue a store that was begun.")
@click.option("--take-over", is_flag=True,
              help="Replace another run that seems to be writing this store.")  # fmt: skip
@_option("grace_seconds", "--grace", metavar="SECONDS")
@_option("skip_bad", "--skip-bad")
@_option("accept_mended_images", "--accept-mended-images")
@_option("accept_weak_teacher", "--accept-weak-teacher")
@_option("people.area_fraction", "--area-fraction")
@_option("teacher_settings.batch_size", "--batch-size")
@device_option(CacheTeacherConfig, "teacher_settings.device")
@_option("teacher_settings.precision", "--precision")
@teacher_options(CacheTeacherConfig)
@config_options
def cache_teacher_command(
    plan: bool, no_probe: bool, resume: bool, take_over: bool, workers: int | None,
    scheduler: str | None, **options: Any,
) -> None:  # fmt: skip
    """Run a heatmap teacher once on every person, and store what it predicts.

    Takes COCO keypoint annotations, their images and a teacher; writes a teacher store (Zarr), from
    which any number of students learn without the teacher. People need no labelled keypoint:
    annotated boxes alone and a detector's boxes are people too.
    """
    if no_probe and not plan:
        raise ConfigError("--no-probe must be left out without --plan: no store begins unprobed")
    config = configured(CacheTeacherConfig, options)
    if not plan and config.training != ComparedTraining():
        raise ConfigError("--student and --epochs must be left out without --plan; stage one needs "
                          "neither")  # fmt: skip

    from pipeline.caching.engines import EngineChoice
    from stages.cache_teacher import cache_teacher
    from stages.commands.terminal import caching_progress
    from stages.plan_cache import plan_cache

    if plan:
        plan_cache(config, with_probe=not no_probe, say=click.echo)
        return
    with caching_progress() as progress:
        result = cache_teacher(
            config,
            resume=resume,
            take_over=take_over,
            engine_choice=EngineChoice(workers, scheduler),
            progress=progress,
            say=click.echo,
        )
    views = result.num_people * result.num_views * result.num_teachers
    of = f" of {result.num_teachers} teachers" if result.num_teachers > 1 else ""
    click.echo(
        f"{result.store} is complete: {counted(result.num_people, 'person')} x "
        f"{counted(result.num_views, 'view')}{of}, "
        f"{result.num_bytes / 1e6:.1f} MB ({result.num_bytes / views:.0f} bytes a view), "
        f"{result.seconds:.0f} s, content {result.content_sha256[:12]}"
    )
    if result.breakdown.core_seconds:
        click.echo(result.breakdown.describe())


@command("train-student")
@_student("store", "--store")
@_student("data.teachers", "--teacher-name", type=str, callback=names, metavar="NAME[,NAME...]")
@_student("data.store_cache", "--cache")
@_student("images", "--images")
@click.option("--preset", metavar="NAME",
              help="Name of the shipped settings: distilpose-s or distilpose-l (the released "
              "recipes, crops of 256x192, from stores with tokens), distilpose-s-no-tokens (from "
              "any store), distilpose-lite (128x96, pretrained on ImageNet) or distilpose-xs "
              "(128x96, for CPU and edge).  [default: distilpose-s-no-tokens]",
)  # fmt: skip
@_student("architecture", "--student", metavar="NAME", default_text="the preset's")
@_run_folder_option
@_student("val_annotations", "--val-annotations")
@_student("val_images", "--val-images")
@switch_off(
    TrainStudentConfig, "distillation", "--no-distillation",
    help="Learn from the annotated keypoints alone; the score of every pose is 1 by rule, unless "
    "loss.score_target is oks.",
)  # fmt: skip
@_student("annotations", "--annotations")
@_student("initial.weights", "--init-weights")
@_student("initial.pretrained", "--pretrained/--no-pretrained", default_text="the preset's")
@_student("data.from_crops", "--from-crops")
@_student("data.view_policy", "--view-policy",
          type=click.Choice(["carry", "replay", "mirror", "teacher-in-loop"]),
          help="Views of a store that are shown: new ones in every epoch, into which the teacher's "
          "predictions of the plain crop are carried; its augmented ones, replayed; these and "
          "their mirror images, of a teacher with --flip-test; or views that the teacher itself "
          "predicts in every step.  [default: carry]")  # fmt: skip
@_student("data.teacher", "--teacher")
@_student("data_on_device", "--data-on-device")
@_checks("data.on_corrupt", "--on-corrupt")
@_checks("data.paranoid", "--paranoid")
@training_options(TrainStudentConfig, default_text="the preset's")
@config_options
def train_student_command(
    preset: str | None, run_folder: Path, resume: bool, **options: Any
) -> None:
    """Train a regression student from a teacher store; the teacher is not needed.

    Takes a teacher store and its images; writes a run folder: config.json, metrics.jsonl, log.txt,
    checkpoints/last.safetensors and best.safetensors.
    """
    resumed = run_folder / CONFIG_FILE if resume else None
    preset = preset or (None if resume else "distilpose-s-no-tokens")
    file = preset_file(preset) if preset else None
    config = configured(TrainStudentConfig, options, preset=file, resumed=resumed)
    config.require_packages()

    from stages.commands.terminal import training_progress
    from stages.train_student import train_student

    with training_progress() as progress:
        result = train_student(
            config, run_folder, resume=resume, progress=progress, command=tuple(sys.argv),
            say=click.echo,
        )  # fmt: skip
    if not is_first_process():
        return
    best = "" if result.best_ap is None else f", best AP {result.best_ap:.3f}"
    best += "" if result.best_pck is None else f", best PCK@0.2 {result.best_pck:.3f}"
    click.echo(
        f"{run_folder}: {counted(result.epochs, 'epoch')}, {counted(result.steps, 'step')}{best}; "
        f"weights in {result.best_weights}"
    )
    if result.corrupt_views:
        click.echo(result.corrupt_views)


@command("train-teacher")
@people_options(TrainTeacherConfig)
@_teacher("store", "--store")
@_teacher("architecture", "--teacher")
@click.option("--preset", metavar="NAME",
              help="Name of shipped settings: tokenpose-s-teacher and tokenpose-hrnet48-teacher, "
              "DistilPose's teachers, or demo-teacher, the demo's.",
)  # fmt: skip
@_run_folder_option
@_teacher("initial.weights", "--init-weights")
@_teacher("initial.pretrained", "--pretrained")
@_teacher("float16_copy", "--float16-copy")
@training_options(TrainTeacherConfig)
@config_options
def train_teacher_command(
    preset: str | None, run_folder: Path, resume: bool, **options: Any
) -> None:
    """Train a heatmap network on Gaussians around annotated keypoints, or on stored heatmaps.

    Takes COCO keypoint annotations, or a teacher store whose heatmaps are learned, and their
    images; writes a run folder, which cache-teacher and evaluate take as --teacher, and
    train-student as --init-weights.
    """
    file = preset_file(preset, "teacher") if preset else None
    resumed = run_folder / CONFIG_FILE if resume else None
    config = configured(TrainTeacherConfig, options, preset=file, resumed=resumed)
    config.require_packages()

    from stages.commands.terminal import training_progress
    from stages.train_teacher import train_teacher

    with training_progress() as progress:
        result = train_teacher(
            config, run_folder, resume=resume, progress=progress, command=tuple(sys.argv),
            say=click.echo,
        )  # fmt: skip
    if not is_first_process():
        return
    click.echo(
        f"{run_folder}: {counted(result.epochs, 'epoch')}, {counted(result.steps, 'step')}; "
        f"weights in {result.weights}"
    )
