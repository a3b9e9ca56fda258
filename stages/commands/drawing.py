"""`distil draw-people` and `demo`: parse, call one function, print its result."""

from pathlib import Path

import click

from stages.commands.options import FOLDER, command


@command("draw-people", short_help="a seed -> drawn people: images, COCO keypoints")
@click.option("--output", type=FOLDER, required=True, help="images/ and annotations.json go here.")
@click.option("--images", "num_images", type=click.IntRange(min=1), metavar="N", default=600,
              show_default=True)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True)
@click.option("--first-index", type=click.IntRange(min=0), metavar="N", default=0,
              show_default=True,
              help="Of the first image; other indices are other people.")  # fmt: skip
def draw_people_command(output: Path, num_images: int, seed: int, first_index: int) -> None:
    """Draw people with COCO keypoint annotations: the same for the same seed and index.

    Takes nothing; leaves images/ and annotations.json in --output.
    """
    from pipeline.drawn.people import write_drawn_people

    click.echo(f"wrote {write_drawn_people(output, num_images, seed, first_index)}")


@command("demo", short_help="nothing -> all of it on drawn people, in minutes")
@click.option("--output", type=FOLDER, default=Path("demo"), show_default=True)
@click.option("--thorough", is_flag=True, help="Three seeds and more people; takes far longer.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
              help="Draws the people and starts the trainings.")  # fmt: skip
def demo_command(output: Path, thorough: bool, seed: int) -> None:
    """Draw people, cache a teacher, train a student with and without it, and compare.

    Takes nothing: no data, no download, no GPU. Leaves the drawn people, the teacher store, both
    run folders, table.json, store.png and people.png in --output.
    """
    from rich.console import Console

    from stages.demo import demo

    demo(output, thorough=thorough, seed=seed, console=Console())
