"""`distil store` and the commands below it: parse, call one stage, print its result."""

from typing import Any

import click

from pipeline.wording import counted
from stages.commands.command_map import CommandMap, Decorator, fail
from stages.commands.options import configured, options_of, setting_option
from stages.commands.pictures import store_show_command
from stages.settings.evaluation import (
    StoreExportConfig,
    StoreInfoConfig,
    StoreRepairConfig,
    StoreSources,
    StoreVerifyConfig,
)

NAMED_FAULTS = 10
"""Number of faults of a kind that are named; the others are counted."""


def _sources(model: type[StoreSources]) -> Decorator[Any]:
    return options_of(
        model,
        {
            "--teacher-name": "teacher_name",
            "--teacher": "teacher",
            "--images": "images",
            "--annotations": "annotations",
            "--detections": "detections",
        },
    )


@click.group("store", cls=CommandMap, subcommand_metavar="WHAT ...")
def store() -> None:
    """Describe a teacher store, verify it, repair it, and export its poses.

    Takes what a command below names; writes to the store only for repair.
    """


@store.command("info", short_help="teacher store -> a description of its contents")
@click.argument("store")
@setting_option(StoreInfoConfig, "teacher_name", "--teacher-name")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON, for programs.")
def info_command(as_json: bool, **options: Any) -> None:
    """Print what a store was made from, what it holds, its size, and whether it is complete.

    Takes a STORE, complete or not; writes nothing. No view is read, so it takes a moment.
    """
    config = configured(StoreInfoConfig, options)

    from stages.store_info import info_as_json, info_as_lines, store_info

    summary = store_info(config)
    click.echo(info_as_json(summary) if as_json else "\n".join(info_as_lines(summary)))


@store.command("verify", short_help="teacher store, images, teacher -> whether they agree")
@click.argument("store")
@_sources(StoreVerifyConfig)
@setting_option(StoreVerifyConfig, "sample", "--sample")
@setting_option(StoreVerifyConfig, "seed", "--seed")
@setting_option(StoreVerifyConfig, "digests_only", "--digests-only")
def verify_command(**options: Any) -> None:
    """Compare every file and image with its sha256, and some views with the teacher.

    Takes a STORE and, where they still are or are named, what it was made from; writes nothing.
    Exits with 1 if anything is not as it was written, or if the teacher predicts a view differently
    by more than the codec allows.
    """
    config = configured(StoreVerifyConfig, options)

    from stages.commands.terminal import brief_progress
    from stages.store_verify import disagreement_as_lines, store_verify

    with brief_progress("checking", "shards, images, views") as progress:
        result = store_verify(config, progress)
    for line in result.checked:
        click.echo(f"checked: {line}")
    for line in result.unchecked:
        click.echo(f"NOT CHECKED: {line}")
    if result.disagreement is not None:
        click.echo("\n".join(disagreement_as_lines(result.disagreement)))
    for kind, lines in result.problems.items():
        for line in lines[:NAMED_FAULTS]:
            click.echo(f"FAULT of {kind}: {line}")
        if len(lines) > NAMED_FAULTS:
            click.echo(f"FAULT of {kind}: {len(lines) - NAMED_FAULTS} more, {len(lines)} in all")
    if result.failed:
        fail(result.failed)
    click.echo(f"{result.store}: all that was checked is as it was written")


@store.command("repair", short_help="teacher store, images, teacher -> the store without damage")
@click.argument("store")
@_sources(StoreRepairConfig)
@setting_option(StoreRepairConfig, "accept_mended_images", "--accept-mended-images")
@click.option("--take-over", is_flag=True,
              help="Replace another run that seems to be writing this store.")  # fmt: skip
def repair_command(take_over: bool, **options: Any) -> None:
    """Repair the shards of a store that are damaged or lack people whose images came back.

    Takes a STORE, its teacher and its images; writes the store complete, all other shards as they
    were. It can be stopped at any time and run again; cache-teacher --resume continues it too.
    """
    config = configured(StoreRepairConfig, options)

    from stages.commands.terminal import caching_progress
    from stages.store_repair import store_repair

    with caching_progress() as progress:
        result = store_repair(config, take_over=take_over, progress=progress, say=click.echo)
    missing = len(result.missing_people)
    left_out = f", {counted(missing, 'person')} left out" if missing else ""
    click.echo(
        f"{result.store} is complete: {counted(len(result.repaired_shards), 'shard')} and "
        f"{counted(len(result.repaired_parts), 'other part')} repaired{left_out}, "
        f"content {result.content_sha256[:12]}"
    )


store.add_command(store_show_command)


@store.command("export", short_help="teacher store -> COCO keypoint results of view 0")
@click.argument("store")
@setting_option(StoreExportConfig, "teacher_name", "--teacher-name")
@setting_option(StoreExportConfig, "output", "--output", required=True)
def export_command(**options: Any) -> None:
    """Write the teacher's poses of the plain crops as COCO keypoint results.

    Takes a STORE; writes a JSON file that evaluate --predictions and any other tool takes.
    """
    config = configured(StoreExportConfig, options)

    from stages.store_export import store_export

    result = store_export(config)
    if result.missing:
        click.echo(result.missing)
    click.echo(f"wrote {counted(result.num_poses, 'pose')} to {config.output}")
