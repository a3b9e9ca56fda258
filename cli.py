"""`distil`: its commands, in the order of the work.

The commands stand in `stages/commands/`: each parses a command line, builds one configuration,
calls one stage and prints its result. Exit codes: 0 done, 1 failed, 2 usage.
"""

import click

from stages.commands.command_map import LazyCommandMap

HELP = """Train small, fast pose networks from a heatmap teacher that runs only once.

\b
  photographs + COCO keypoints + heatmap teacher
          |  cache-teacher    the teacher predicts every person, once
          v
    teacher store             the teacher is not needed any more
          |  train-student    as often as you like, anywhere
          v
    run folder                a small network, its settings and metrics
          |  evaluate         COCO AP / AR of students, teachers, stores
          v
    evaluation.json

No data at hand? `distil demo` draws its own people and does all of this in minutes.
"""
COMMANDS = {
    "cache-teacher": (
        "stages.commands.training:cache_teacher_command",
        "COCO keypoints, images, teacher -> teacher store",
    ),
    "train-student": (
        "stages.commands.training:train_student_command",
        "teacher store, images -> run folder with a student",
    ),
    "evaluate": (
        "stages.commands.evaluation:evaluate_command",
        "student, teacher, store or results -> AP, evaluation.json",
    ),
    "compare": (
        "stages.commands.evaluation:compare_command",
        "runs of students -> one table, paired differences",
    ),
    "report": (
        "stages.commands.report:report_command",
        "runs of students -> one HTML page: curves, figures, people",
    ),
    "export": (
        "stages.commands.export:export_command",
        "run of a student -> one ONNX file, verified, and its card",
    ),
    "ablate": (
        "stages.commands.ablation:ablate_command",
        "a sweep, teacher store, images -> runs, one table of all arms",
    ),
    "show": (
        "stages.commands.pictures:show_command",
        "teacher store or run -> a picture: heat, poses, attention",
    ),
    "predict": (
        "stages.commands.prediction:predict_command",
        "student, photographs or videos -> drawn poses, COCO results",
    ),
    "store": (
        "stages.commands.store:store",
        "teacher store -> contents, verification, repair",
    ),
    "train-teacher": (
        "stages.commands.training:train_teacher_command",
        "COCO keypoints, images -> run folder with a teacher",
    ),
    "draw-people": (
        "stages.commands.drawing:draw_people_command",
        "a seed -> drawn people: images, COCO keypoints",
    ),
    "benchmark": (
        "stages.commands.benchmark:benchmark",
        "people, teacher or store -> figures of this machine",
    ),
    "settings": (
        "stages.commands.settings:settings_command",
        "a command -> its settings: values, defaults, meanings",
    ),
    "demo": (
        "stages.commands.drawing:demo_command",
        "nothing -> all of it on drawn people, in minutes",
    ),
}
"""Name -> (place, short help), so that `distil --help` imports no command."""


@click.group(
    cls=LazyCommandMap,
    listed=COMMANDS,
    help=HELP,
    subcommand_metavar="COMMAND ...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="distil-pose", message="distil %(version)s")
def main() -> None:
    pass


if __name__ == "__main__":
    main()
