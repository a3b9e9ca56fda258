"""`distil report`: parse, call one stage, print its result."""

import functools
import sys
from pathlib import Path
from typing import Any

import click

from stages.commands.command_map import command
from stages.commands.options import config_options, configured, options_of, setting_option
from stages.settings.report import ReportConfig

_report = functools.partial(setting_option, ReportConfig)


@command("report")
@click.argument(
    "run_folders", nargs=-1, required=True, metavar="RUN_FOLDER...", type=click.Path(path_type=Path)
)
@_report("output", "--output", required=True)
@options_of(
    ReportConfig,
    {
        "--store": "store",
        "--teacher-name": "teacher_name",
        "--annotations": "annotations",
        "--images": "images",
        "--people": "num_people",
        "--evaluations": "evaluations",
        "--seed": "seed",
    },
)
@_report("device", "--device", metavar="DEVICE")
@config_options
def report_command(**options: Any) -> None:
    """Write a page about runs: curves, AP and OKS with intervals, scores, people, settings.

    Takes one or more RUN_FOLDERs of students and, by default, the people that they were validated
    on; writes one HTML file that needs no network. A network is measured once: its figures are
    kept in its run folder.
    """
    config = configured(ReportConfig, options)

    from stages.commands.terminal import brief_progress
    from stages.report import report

    with brief_progress("evaluating", "poses") as progress:
        written = report(config, progress, sys.argv)
    click.echo(f"wrote {written}")
