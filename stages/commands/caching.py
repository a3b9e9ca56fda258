"""`distil cache-teacher`: parse, call one stage, print its result."""

from pathlib import Path
from typing import Any

import click

from pipeline.wording import counted
from stages.commands.options import (
    area_fraction_option,
    command,
    config_options,
    optional_array_options,
    people_options,
    profile_option,
    teacher_fields,
    teacher_options,
    teacher_path_option,
    view_options,
)


@command("cache-teacher", short_help="COCO keypoints, images, teacher -> teacher store")
@people_options
@teacher_path_option
@click.option("--store", metavar="PATH|URL",
              help="The teacher store to write, e.g. teacher.zarr or s3://bucket/teacher.zarr."
)  # fmt: skip
@click.option("--teacher-name", metavar="NAME",
              help="Under which the store keeps it; a new one joins the store's others.  "
              "[default: teacher]")  # fmt: skip
@profile_option
@optional_array_options
@view_options
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
@area_fraction_option
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
    from pipeline.caching.settings import CacheTeacherConfig
    from pipeline.config import load_config
    from stages.cache_teacher import cache_teacher
    from stages.commands.terminal import caching_progress
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
