"""`distil export`: parse, call one stage, print its result."""

import functools
from typing import Any

import click

from stages.commands.command_map import command
from stages.commands.options import config_options, configured, device_option, setting_option
from stages.settings.export import ExportConfig

_option = functools.partial(setting_option, ExportConfig)


@command("export")
@_option("run_folder", "--run-folder")
@_option("student", "--student")
@_option("output", "--output")
@_option("precision", "--precision")
@_option("batch_size", "--batch", type=str, metavar="dynamic|N", default_text="dynamic")
@_option("val_annotations", "--val-annotations")
@_option("val_images", "--val-images")
@_option("max_ap_loss", "--max-ap-loss")
@device_option(ExportConfig)
@_option("store", "--store")
@_option("images", "--images")
@_option("licence", "--licence")
@_option("push_to_hub", "--push-to-hub")
@config_options
def export_command(**options: Any) -> None:
    """Export a student as one ONNX file, from the pixels of crops to keypoints and scores.

    Takes a run folder or a student's weights; writes --output and its model card, and prints size,
    time and AP. Before it is written, the file is compared with the run at batches of 1 and 64, and
    by AP where --val-annotations are given; a file that fails is not written.
    """
    config = configured(ExportConfig, options)

    from rich.console import Console

    from pipeline.export.hub import require_hub
    from pipeline.export.runtime import require_onnx
    from stages.commands.evaluation_tables import print_export
    from stages.commands.terminal import brief_progress

    require_onnx("onnx", "onnxruntime")
    if config.push_to_hub is not None:
        require_hub()

    from stages.export import export

    with brief_progress("evaluating", "poses") as progress:
        result = export(config, progress)
    print_export(Console(), result.rows, result.notes)
    for path in result.written:
        click.echo(f"wrote {path}")
    if result.pushed_to is not None:
        click.echo(f"pushed to {result.pushed_to}")
