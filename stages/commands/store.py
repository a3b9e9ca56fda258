"""`distil store` and the commands below it: parse, call one stage, print its result."""

from copy import copy
from typing import Any

import click

from pipeline.wording import counted
from stages.commands.evaluation import show_command
from stages.commands.options import ANY, FILE, FOLDER, CommandMap, fail, stack, teacher_name_option

NAMED_FAULTS = 10
"""Faults of a kind that are named; the others are counted."""

_sources = stack(
    click.option("--teacher", type=ANY, help="[default: the one that the store was made with]"),
    click.option("--images", type=FOLDER, help="[default: those that the store was made from]"),
    click.option("--annotations", type=FILE, help="The people, as COCO keypoint JSON."),
)


@click.group("store", cls=CommandMap, subcommand_metavar="WHAT ...",
             short_help="teacher store -> what it holds, whether it is whole, mended")  # fmt: skip
def store() -> None:
    """Look at a teacher store, check it, mend it, and take poses out of it.

    Takes what a command below names; leaves the store as it was, but for repair.
    """


@store.command("info", short_help="teacher store -> what it says of itself")
@click.argument("store")
@teacher_name_option
@click.option("--json", "as_json", is_flag=True, help="All of it, for programs.")
def info_command(store: str, teacher_name: str | None, as_json: bool) -> None:
    """Say what a store was made from, what it holds and takes, and whether it is complete.

    Takes a STORE, complete or not; leaves nothing. No view is read, so it takes a moment.
    """
    from stages.settings.store import StoreInfoConfig
    from stages.store_info import info_as_json, info_as_lines, store_info

    summary = store_info(StoreInfoConfig(store=store, teacher_name=teacher_name))
    click.echo(info_as_json(summary) if as_json else "\n".join(info_as_lines(summary)))


@store.command("verify", short_help="teacher store, images, teacher -> whether they agree")
@click.argument("store")
@teacher_name_option
@_sources
@click.option("--sample", type=int, metavar="N",
              help="Views that the teacher is shown again.  [default: 64]")  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="Chooses them.  [default: 0]")
@click.option("--digests-only", is_flag=True, default=None, help="Do not ask the teacher.")
def verify_command(**options: Any) -> None:
    """Compare every file and image with its sha256, and some views with the teacher.

    Takes a STORE and, where they still are or are named, what it was made from; leaves nothing.
    Exits with 1 if anything is not as it was written, or a view is further from what the teacher
    says now than its codec allows.
    """
    from pipeline.config import load_config
    from stages.commands.terminal import brief_progress
    from stages.settings.store import StoreVerifyConfig
    from stages.store_verify import disagreement_as_lines, store_verify

    config = load_config(StoreVerifyConfig, fields=options)
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


@store.command("repair", short_help="teacher store, images, teacher -> its damaged shards redone")
@click.argument("store")
@teacher_name_option
@_sources
@click.option("--accept-mended-images", is_flag=True, default=None,
              help="Take images that changed and that no shard that is kept was written of."
)  # fmt: skip
@click.option("--take-over", is_flag=True,
              help="Replace another run that seems to be writing this store.")  # fmt: skip
def repair_command(take_over: bool, **options: Any) -> None:
    """Redo the shards of a store that are damaged or lack people whose images came back.

    Takes a STORE, its teacher and its images; leaves the store complete, all other shards as they
    were. It can be stopped at any time and run again; cache-teacher --resume goes on with it too.
    """
    from pipeline.config import load_config
    from stages.commands.terminal import caching_progress
    from stages.settings.store import StoreRepairConfig
    from stages.store_repair import store_repair

    config = load_config(StoreRepairConfig, fields=options)
    with caching_progress() as progress:
        result = store_repair(config, take_over=take_over, progress=progress, say=click.echo)
    missing = len(result.missing_people)
    left_out = f", {counted(missing, 'person')} left out" if missing else ""
    click.echo(
        f"{result.store} is complete: {counted(len(result.repaired_shards), 'shard')} and "
        f"{counted(len(result.repaired_parts), 'other part')} repaired{left_out}, "
        f"content {result.content_sha256[:12]}"
    )


show_below_store = copy(show_command)
show_below_store.short_help = f"{show_command.short_help}; as distil show"
store.add_command(show_below_store)


@store.command("export", short_help="teacher store -> COCO keypoint results of view 0")
@click.argument("store")
@teacher_name_option
@click.option("--output", type=FILE, required=True, help="The JSON to write.")
def export_command(**options: Any) -> None:
    """Write what the teacher said of the plain crops as COCO keypoint results.

    Takes a STORE; leaves a JSON file that evaluate --predictions and any other tool takes.
    """
    from pipeline.config import load_config
    from stages.settings.store import StoreExportConfig
    from stages.store_export import store_export

    result = store_export(load_config(StoreExportConfig, fields=options))
    if result.missing:
        click.echo(result.missing)
    click.echo(f"wrote {counted(result.num_poses, 'pose')} to {result.output}")
