"""`distil draw-people` and `demo`: parse, call one function, print its result."""

from pathlib import Path

import click

from stages.commands.command_map import command

_FOLDER = click.Path(path_type=Path, file_okay=False)


@command("draw-people")
@click.option("--output", type=_FOLDER, required=True,
              help="Folder for images/ and annotations.json.")  # fmt: skip
@click.option("--images", "num_images", type=click.IntRange(min=1), metavar="N", default=600,
              show_default=True, help="Number of images.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
              help="Seed of the drawing.")  # fmt: skip
@click.option("--first-index", type=click.IntRange(min=0), metavar="N", default=0,
              show_default=True,
              help="Index of the first image; other indices show other people.")  # fmt: skip
def draw_people_command(output: Path, num_images: int, seed: int, first_index: int) -> None:
    """Draw people with COCO keypoint annotations: the same for the same seed and index.

    Takes nothing; writes images/ and annotations.json in --output.
    """
    from pipeline.drawn.people import write_drawn_people

    click.echo(f"wrote {write_drawn_people(output, num_images, seed, first_index)}")


@command("demo")
@click.option("--output", type=_FOLDER, default=Path("demo"), show_default=True,
              help="Folder for all that the demo writes.")  # fmt: skip
@click.option("--thorough", is_flag=True,
              help="Train with three seeds on more people; takes far longer.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
              help="Seed of the drawn people and of the trainings.")  # fmt: skip
@click.option("--device", metavar="DEVICE",
              help="Device of teacher and students: auto, cpu, cuda, mps or cuda:N.  "
              "[default: auto]")  # fmt: skip
def demo_command(output: Path, thorough: bool, seed: int, device: str | None) -> None:
    """Draw people, cache a teacher, train a student with and without it, and compare.

    Takes nothing: no data, no download, no GPU. Writes the drawn people, the teacher store, both
    run folders, table.json, report.html, store.png and people.png in --output.
    """
    from rich.console import Console

    from stages.demo import demo

    demo(output, thorough=thorough, seed=seed, console=Console(), device=device)
