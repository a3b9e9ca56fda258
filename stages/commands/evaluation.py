"""`distil evaluate`, `compare` and `show`: parse, call one stage, print its result."""

from pathlib import Path
from typing import Any

import click

from stages.commands.options import (
    ANY,
    FILE,
    FOLDER,
    area_fraction_option,
    cache_option,
    command,
    config_options,
    fail,
    named_paths,
    teacher_fields,
    teacher_name_option,
    teacher_options,
    teacher_path_option,
    truth_options,
)


@command("evaluate", short_help="student, teacher, store or results -> AP, evaluation.json")
@click.option("--run-folder", type=FOLDER, help="A student: the best weights of its run.")
@click.option("--weights", type=FILE, help="A student's weights file.")
@teacher_path_option
@click.option("--store", metavar="PATH|URL",
              help="A store's own outputs of view 0; needs no other input.")  # fmt: skip
@teacher_name_option
@cache_option
@click.option("--predictions", type=FILE, help="COCO keypoint results of any tool, as they are.")
@truth_options
@click.option("--detections", type=FILE, help="A detector's boxes in place of the true ones.")
@click.option("--output", type=FOLDER, help="Folder for evaluation.json and results.json.")
@click.option("--min-ap", type=float, metavar="X", help="Exit with 1 below this AP.")
@click.option("--no-flip-test", is_flag=True, help="Look at the plain crop only.")
@click.option("--unclipped-boxes", is_flag=True, help="Do not cut true boxes off at the image.")
@click.option("--keypoint-threshold", metavar="SCORE|none",
              help="Keypoint scores above it are averaged; none: all.  [default: 0.2]")  # fmt: skip
@area_fraction_option
@teacher_options
@config_options
def evaluate_command(
    no_flip_test: bool, unclipped_boxes: bool, config_file: Path | None,
    overrides: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Measure COCO AP / AR, AP with score 1, and mean OKS.

    Takes exactly one of --run-folder, --weights, --teacher, --store and --predictions; prints a
    table, and leaves evaluation.json and results.json in --output (of a run: evaluation.json in its
    folder).
    """
    from rich.console import Console

    from pipeline.config import load_config
    from stages.commands.evaluation_table import print_report
    from stages.commands.terminal import brief_progress
    from stages.evaluate import evaluate
    from stages.settings.evaluation import EvaluateConfig

    fields = teacher_fields(options)
    fields["people.area_fraction"] = options.pop("area_fraction")
    config = load_config(
        EvaluateConfig,
        config_file=config_file,
        overrides=overrides,
        fields={
            **fields,
            **options,
            "flip_test": False if no_flip_test else None,
            "people.clip_boxes": False if unclipped_boxes else None,
        },
    )
    with brief_progress("evaluating", "poses") as progress:
        result = evaluate(config, progress)
    print_report(Console(), result.report, result.notes)
    for path in result.written:
        click.echo(f"wrote {path}")
    if result.gate_failed:
        fail(result.gate_failed)


@command("compare", short_help="runs of students -> one table, paired differences")
@truth_options
@click.option("--arm", "arms", multiple=True, metavar="NAME=RUN_FOLDER", callback=named_paths,
              help="A run of train-student; the same NAME again is another seed. Repeatable."
)  # fmt: skip
@click.option("--teacher", type=ANY, help="Also measure a .onnx file or run of train-teacher.")
@click.option("--mean-pose", type=FILE, help="Also the mean pose of these training annotations.")
@click.option("--output", type=FILE, help="JSON file for all figures.")
@teacher_options
@config_options
def compare_command(config_file: Path | None, overrides: tuple[str, ...], **options: Any) -> None:
    """Measure several students on the same people, side by side and person by person.

    Takes run folders and the truth; prints AP, AP with score 1, mean OKS and cost of each arm, and
    the first arm's difference from the others with a 95 % interval; leaves --output.
    """
    from rich.console import Console

    from pipeline.config import load_config
    from stages.commands.comparison_table import print_comparison
    from stages.compare import compare
    from stages.settings.evaluation import CompareConfig

    fields = teacher_fields(options)
    config = load_config(
        CompareConfig, config_file=config_file, overrides=overrides, fields={**fields, **options}
    )
    found = compare(config)
    print_comparison(Console(), found.arms, found.differences, found.num_people)
    if config.output is not None:
        click.echo(f"wrote {config.output}")


@command("show", short_help="teacher store -> a picture of what it holds")
@click.argument("store")
@teacher_name_option
@click.option("--output", type=FILE, required=True, help="The PNG to write.")
@click.option("--images", type=FOLDER, help="[default: the folder that the store was made from]")
@click.option("--people", "num_people", type=int, metavar="N", help="Rows.  [default: 8]")
@click.option("--views", "num_views", type=int, metavar="N",
              help="Augmented views of each person.  [default: 3]")  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="Chooses the people.  [default: 0]")
def show_command(**options: Any) -> None:
    """Draw people of a teacher store: truth, heatmaps and the teacher's keypoints, by view.

    Takes a STORE and its images; leaves a PNG.
    """
    from pipeline.config import load_config
    from stages.settings.evaluation import ShowConfig
    from stages.show import show

    click.echo(f"wrote {show(load_config(ShowConfig, fields=options))}")
