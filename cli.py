"""`distil`: what it offers, in the order of the work.

The commands stand in `stages/commands/`: each parses a command line, builds one configuration,
calls one stage and prints its result. Exit codes: 0 done, 1 failed, 2 usage.
"""

import click

from stages.commands.benchmark import benchmark
from stages.commands.caching import cache_teacher_command
from stages.commands.drawing import demo_command, draw_people_command
from stages.commands.evaluation import compare_command, evaluate_command, show_command
from stages.commands.options import CommandMap
from stages.commands.store import store
from stages.commands.training import train_student_command, train_teacher_command

HELP = """Train small, fast pose networks from a heatmap teacher that runs only once.

\b
  photographs + COCO keypoints + heatmap teacher
          |  cache-teacher    the teacher looks at every person, once
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


@click.group(
    cls=CommandMap,
    help=HELP,
    subcommand_metavar="COMMAND ...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="distil-pose", message="distil %(version)s")
def main() -> None:
    pass


main.add_command(cache_teacher_command)
main.add_command(train_student_command)
main.add_command(evaluate_command)
main.add_command(compare_command)
main.add_command(show_command)
main.add_command(store)
main.add_command(train_teacher_command)
main.add_command(draw_people_command)
main.add_command(benchmark)
main.add_command(demo_command)


if __name__ == "__main__":
    main()
