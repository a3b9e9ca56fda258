"""`distil predict`: parse, call one stage, print its result."""

import functools
from typing import Any

import click

from pipeline.wording import counted
from stages.commands.command_map import command, fail
from stages.commands.options import (
    config_options,
    configured,
    options_of,
    setting_option,
    switch_off,
)
from stages.settings.prediction import PredictConfig

_predict = functools.partial(setting_option, PredictConfig)


@command("predict")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@_predict("student", "--student", required=True)
@options_of(
    PredictConfig,
    {
        "--detections": "detections",
        "--annotations": "annotations",
        "--detector": "detector",
        "--whole-image": "whole_image",
        "--output": "output",
        "--min-box-score": "min_box_score",
        "--detect-every": "detect_every",
        "--max-frames": "max_frames",
        "--min-keypoint-score": "min_keypoint_score",
    },
)
@switch_off(PredictConfig, "draw", "--no-pictures",
            help="Write the JSON files only, no pictures and no videos.")  # fmt: skip
@switch_off(PredictConfig, "flip_test", "--no-flip-test",
            help="Predict the plain crop only, without the mirrored one.")  # fmt: skip
@_predict("padding", "--padding")
@_predict("batch_size", "--batch-size")
@_predict("device", "--device")
@config_options
def predict_command(**options: Any) -> None:
    """Find people's keypoints in photographs, videos or a webcam's picture.

    Takes a --student and any number of INPUTs: files, folders, or the index of a webcam; and the
    boxes of the people by one of --detections, --detector and --whole-image. Writes drawn pictures
    and videos, results.json (COCO results: keypoints, scores, boxes, track ids) and images.json
    (what their ids mean) in --output. An input that cannot be read is named, the rest goes on, and
    the exit code is 1.
    """
    config = configured(PredictConfig, options)

    from stages.commands.terminal import brief_progress
    from stages.predict import predict

    with brief_progress("predicting", "images") as progress:
        result = predict(config, progress, lambda line: click.echo(f"distil: {line}", err=True))
    click.echo(
        f"wrote {result.output}: {counted(result.num_poses, 'pose')} in "
        f"{counted(result.num_images, 'image')}, {result.people_per_second:.1f} people/s"
    )
    if result.failed:
        fail(f"{len(result.failed)} of the inputs could not be read whole; they are named above")
