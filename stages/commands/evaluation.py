"""`distil evaluate` and `compare`: parse, call one stage, print its result."""

import functools
from pathlib import Path
from typing import Any

import click

from pipeline.config import merge_settings
from stages.commands.command_map import command, fail
from stages.commands.options import (
    config_options,
    configured,
    device_option,
    named_paths,
    option_names,
    people_options,
    require_inputs,
    setting_option,
    switch_off,
    teacher_options,
)
from stages.settings.evaluation import (
    CompareConfig,
    EvaluateExported,
    EvaluatePredictions,
    EvaluateRun,
    EvaluateStore,
    EvaluateTeacher,
    EvaluateWeights,
    evaluation_of,
)

_compare = functools.partial(setting_option, CompareConfig)


@command("evaluate")
@setting_option(EvaluateRun, "run_folder", "--run-folder")
@setting_option(EvaluateWeights, "weights", "--weights")
@setting_option(EvaluateExported, "student", "--student")
@setting_option(EvaluateTeacher, "teacher", "--teacher")
@setting_option(EvaluateStore, "store", "--store")
@setting_option(EvaluateStore, "teacher_name", "--teacher-name")
@setting_option(EvaluateStore, "store_cache", "--cache")
@setting_option(EvaluatePredictions, "predictions", "--predictions")
@setting_option(EvaluateStore, "annotations", "--annotations")
@setting_option(EvaluateTeacher, "images", "--images")
@setting_option(EvaluateTeacher, "detections", "--detections")
@device_option(EvaluateRun)
@setting_option(EvaluateTeacher, "output", "--output")
@setting_option(EvaluateTeacher, "min_ap", "--min-ap")
@switch_off(EvaluateTeacher, "flip_test", "--no-flip-test",
            help="Predict the plain crop only, without the mirrored one.")  # fmt: skip
@switch_off(EvaluateTeacher, "people.clip_boxes", "--unclipped-boxes",
            help="Do not intersect the boxes of the annotated people with the image.",
)  # fmt: skip
@setting_option(EvaluateTeacher, "keypoint_threshold", "--keypoint-threshold", type=str,
                metavar="SCORE|none", default_text="none")  # fmt: skip
@setting_option(EvaluateTeacher, "people.area_fraction", "--area-fraction")
@teacher_options(EvaluateTeacher)
@config_options
def evaluate_command(config_file: Path | None, overrides: tuple[str, ...], **options: Any) -> None:
    """Measure COCO AP / AR, AP with score 1, and mean OKS.

    Takes exactly one of --run-folder, --weights, --student, --teacher, --store and --predictions;
    prints a table, and writes evaluation.json and results.json in --output (of a run:
    evaluation.json in its folder).
    """
    config = evaluation_of(merge_settings(None, config_file, overrides, options), option_names())
    require_inputs(config)

    from rich.console import Console

    from stages.commands.evaluation_tables import print_report
    from stages.commands.terminal import brief_progress
    from stages.evaluate import evaluate

    with brief_progress("evaluating", "poses") as progress:
        result = evaluate(config, progress)
    print_report(Console(), result.report, result.notes)
    for path in result.written:
        click.echo(f"wrote {path}")
    if result.gate_failed:
        fail(result.gate_failed)


@command("compare")
@people_options(CompareConfig)
@_compare("arms", "--arm", type=str, multiple=True, metavar="NAME=RUN_FOLDER|FILE",
          callback=named_paths)  # fmt: skip
@_compare("teacher", "--teacher")
@_compare("mean_pose", "--mean-pose")
@_compare("output", "--output")
@device_option(CompareConfig)
@switch_off(CompareConfig, "measure_cost", "--no-cost",
            help="Do not measure time and memory of the networks.")  # fmt: skip
@teacher_options(CompareConfig)
@config_options
def compare_command(**options: Any) -> None:
    """Measure several students on the same people, side by side and person by person.

    Takes run folders or exported students, and the truth; prints AP, AP with score 1 and mean OKS
    of each arm, students and teacher with their cost, and the first arm's difference from the
    others with a 95 % interval; writes all figures to --output.
    """
    config = configured(CompareConfig, options)

    from rich.console import Console

    from stages.commands.evaluation_tables import print_comparison
    from stages.compare import compare

    found = compare(config)
    print_comparison(Console(), found.arms, found.differences, found.num_people, found.notes)
    if config.output is not None:
        click.echo(f"wrote {config.output}")
