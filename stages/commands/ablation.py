"""`distil ablate`: parse, call one stage, print its table."""

import functools
from pathlib import Path
from typing import Any

import click

from pipeline.config import load_config, merge_settings
from pipeline.errors import ConfigError
from stages.commands.command_map import command
from stages.commands.options import FOLDER, device_option, names, require_inputs, setting_option
from stages.settings.ablate import AblateConfig, plan_sweep
from stages.settings.training import TrainStudentConfig

_OWN = ("parallel", "only", "seeds", "person_views", "baseline")
"""Options that are settings of the sweep, and not of its trainings."""
_sweep = functools.partial(setting_option, AblateConfig)
_training = functools.partial(
    setting_option, TrainStudentConfig, heading="Settings of all trainings"
)


def _numbers(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> list[int] | None:
    """Read numbers with commas between them; None: not given."""
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is not a list of numbers, for example 0,1", context, parameter
        ) from error


def _values(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, str]:
    """Read NAME=VALUE as often as it is given."""
    pairs = [text.partition("=") for text in texts]
    for name, _, value in pairs:
        if not (name and value):
            raise click.BadParameter(
                f"{name!r} is not NAME=VALUE, for example heatmap_start=runs/t/checkpoints/"
                "best.safetensors",
                context,
                parameter,
            )
    return {name: value for name, _, value in pairs}


@command("ablate")
@click.argument("sweep")
@click.option("--output", type=FOLDER, required=True,
              help="Folder for the run folders, the evaluations and the table.")  # fmt: skip
@_sweep("parallel", "--parallel")
@_sweep("only", "--only", type=str, callback=names, metavar="ARM[,ARM...]")
@_sweep("seeds", "--seeds", type=str, callback=_numbers, metavar="N[,N...]")
@_sweep("person_views", "--person-views")
@_sweep("baseline", "--baseline", metavar="ARM")
@click.option("--fill", multiple=True, metavar="NAME=VALUE", callback=_values,
              help="Value of a placeholder {NAME} in the sweep's arms, such as a file; repeatable.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True,
              help="List the trainings, their bytes and the time to expect; train nothing.",
)  # fmt: skip
@_training("store", "--store")
@_training("annotations", "--annotations")
@_training("images", "--images")
@_training("val_annotations", "--val-annotations",
           help="COCO keypoint JSON of the people that all arms are reported on.")  # fmt: skip
@_training("val_images", "--val-images")
@_training("initial.weights", "--init-weights")
@device_option(TrainStudentConfig, heading="Settings of all trainings")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE",
              help="Value of a setting of train-student for all arms; repeatable.")  # fmt: skip
def ablate_command(
    sweep: str, output: Path, dry_run: bool, fill: dict[str, str], overrides: tuple[str, ...],
    **options: Any,
) -> None:  # fmt: skip
    """Train the arms of a sweep that differ in a few settings, and compare them in one table.

    Takes a SWEEP, a TOML file or the name of a shipped one; writes run folders, table.md,
    table.csv, runs.csv, table.json and curves.png in --output. The same command continues a sweep:
    what is finished is not repeated.
    """
    own = {name: options.pop(name) for name in _OWN}
    given = {name: _plain(value) for name, value in options.items() if value is not None}
    settings = merge_settings(None, None, overrides, given)
    fields = {**own, "sweep": sweep, "output": output, "fill": fill, "settings": settings}
    config = load_config(AblateConfig, fields=fields)
    plan = plan_sweep(config)
    for run in plan.runs:
        try:
            require_inputs(run.config)
        except ConfigError as error:
            raise ConfigError(f"the arm {run.arm.name!r}: {error}") from error

    from rich.console import Console

    from stages.ablate import ablate, forecast
    from stages.commands.ablation_tables import print_forecast, print_table
    from stages.commands.terminal import brief_progress

    if dry_run:
        print_forecast(Console(), forecast(config, plan))
        return
    with brief_progress("trainings", "person-views") as progress:
        result = ablate(config, plan, progress, click.echo)
    print_table(Console(), result.table)
    for path in result.written:
        click.echo(f"wrote {path}")


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
