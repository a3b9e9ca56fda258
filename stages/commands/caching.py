"""`distil cache-teacher`: parse, call one stage, print its result."""

import functools
from typing import Any

import click

from pipeline.caching.settings import CacheTeacherConfig
from pipeline.wording import counted
from stages.commands.command_map import command
from stages.commands.options import (
    config_options,
    configured,
    people_options,
    setting_option,
    stack,
    teacher_options,
)

_option = functools.partial(setting_option, CacheTeacherConfig)
_stored = functools.partial(_option, heading="Other stored arrays")
_store_options = stack(
    _option("store", "--store", metavar="PATH|URL"),
    _option("teacher_name", "--teacher-name"),
    _option("profile", "--profile"),
    _stored("crops", "--crops"),
    _stored("crop_quality", "--crop-quality", metavar="Q"),
    _stored("tokens", "--tokens"),
)
_view_options = stack(
    _option("views", "--views"),
    _option("seed", "--seed"),
    _option("teacher_settings.flip_test", "--flip-test"),
)
_run_options = stack(
    click.option("--plan", is_flag=True, help="Print what the store would cost; write nothing."),
    _option("probe_people", "--probe"),
    click.option("--workers", type=int, metavar="N",
                 help="Number of processes of this machine that share the work.  "
                 "[default: this process]"),
    click.option("--scheduler", metavar="ADDRESS",
                 help="Address of a running dask cluster that does the work: tcp://HOST:8786."),
    click.option("--resume", is_flag=True, help="Continue a store that was begun."),
    click.option("--take-over", is_flag=True,
                 help="Replace another run that seems to be writing this store."),
    _option("grace_seconds", "--grace", metavar="SECONDS"),
    _option("skip_bad", "--skip-bad"),
    _option("accept_mended_images", "--accept-mended-images"),
    _option("accept_weak_teacher", "--accept-weak-teacher"),
    _option("people.area_fraction", "--area-fraction"),
    _option("teacher_settings.batch_size", "--batch-size"),
)  # fmt: skip


@command("cache-teacher")
@people_options(CacheTeacherConfig)
@_option("teacher", "--teacher")
@_store_options
@_view_options
@_run_options
@teacher_options(CacheTeacherConfig)
@config_options
def cache_teacher_command(
    plan: bool, resume: bool, take_over: bool, workers: int | None, scheduler: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Run a heatmap teacher once on every person, and store what it predicts.

    Takes COCO keypoint annotations, their images and a teacher; writes a teacher store (Zarr), from
    which any number of students learn without the teacher.
    """
    with_probe = options["probe_people"] is not None
    config = configured(CacheTeacherConfig, options)

    from pipeline.caching.engines import EngineChoice
    from stages.cache_teacher import cache_teacher
    from stages.commands.terminal import caching_progress
    from stages.plan_cache import plan_cache

    if plan:
        plan_cache(config, with_probe=with_probe, say=click.echo)
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
