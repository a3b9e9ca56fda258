"""`distil show` and `distil store show`: parse, call one stage, print its result."""

import functools
from typing import Any

import click

from pipeline.config import merge_settings
from stages.commands.command_map import command
from stages.commands.options import (
    configured,
    device_option,
    names,
    option_names,
    options_of,
    require_inputs,
    setting_option,
    teacher_options,
)
from stages.settings.pictures import (
    ShowAttentionConfig,
    ShowConfig,
    ShowStudentConfig,
    picture_of,
)

_student = functools.partial(setting_option, ShowStudentConfig)
_attention = functools.partial(setting_option, ShowAttentionConfig)
_store_options = options_of(
    ShowConfig,
    {
        "--teacher-name": "teacher_name",
        "--images": "images",
        "--views": "num_views",
        "--seed": "seed",
    },
)


@command("show", short_help="teacher store or run -> a picture: heat, poses, attention")
@click.argument("store", required=False)
@_student("run_folder", "--run-folder")
@_student("worst", "--worst")
@_student("teacher", "--teacher")
@_attention("attention", "--attention")
@_attention("keypoints", "--keypoints", type=str, callback=names, metavar="NAMES")
@setting_option(ShowConfig, "output", "--output", required=True)
@_student("annotations", "--annotations")
@setting_option(ShowConfig, "num_people", "--people", default_text="8; with --attention 2")
@device_option(ShowStudentConfig)
@_store_options
@teacher_options(ShowStudentConfig)
def show_command(**options: Any) -> None:
    """Draw what a teacher store holds, how a student does beside its teacher, or attention.

    Takes a STORE and its images: truth, heatmaps and the teacher's keypoints, by view.
    With --run-folder: a student's poses, and those of the teacher of a STORE or of --teacher;
    --worst N draws the people with the lowest OKS.
    With --attention: a run's attention from keypoint tokens to the image, by layer.
    Writes a PNG.
    """
    config = picture_of(merge_settings(None, None, (), options), option_names())
    require_inputs(config)
    if isinstance(config, ShowConfig):
        from stages.show import show

        written = show(config)
    elif isinstance(config, ShowAttentionConfig):
        from stages.show_attention import show_attention

        written = show_attention(config)
    else:
        from stages.commands.terminal import brief_progress
        from stages.show_student import show_student

        with brief_progress("predicting", "poses") as progress:
            written = show_student(config, progress)
    click.echo(f"wrote {written}")


@command("show", short_help="teacher store -> a picture of what it holds")
@click.argument("store")
@setting_option(ShowConfig, "output", "--output", required=True)
@setting_option(ShowConfig, "num_people", "--people")
@_store_options
def store_show_command(**options: Any) -> None:
    """Draw people of a teacher store: truth, heatmaps and the teacher's keypoints, by view.

    Takes a STORE and its images; writes a PNG.
    """
    config = configured(ShowConfig, options)

    from stages.show import show

    click.echo(f"wrote {show(config)}")
