"""The commands below `distil benchmark`: parse, call one stage, print its result.

Part of the command line, as ``cli.py``: stages are imported inside their command.
"""

from pathlib import Path
from typing import Any

import click

from stages.command_options import (
    ANY,
    FILE,
    FOLDER,
    CommandMap,
    config_options,
    teacher_fields,
    teacher_options,
)


@click.group("benchmark", cls=CommandMap, subcommand_metavar="WHAT ...",
            short_help="people, teacher or store -> figures of this machine")  # fmt: skip
def benchmark() -> None:
    """Measure on your own people and machine what the documentation claims.

    Takes what a command below names; prints tables, and leaves JSON in --output.
    """


@benchmark.command("codec", short_help="people, teacher -> size, speed, fidelity of heatmap codecs")
@click.option("--annotations", type=FILE, help="COCO keypoint JSON.")
@click.option("--images", type=FOLDER, help="Folder that its file names are relative to.")
@click.option("--teacher", type=ANY, help="A .onnx file, or a run folder of train-teacher.")
@click.option("--people", "people_count", type=int, metavar="N",
              help="Spread evenly over all people.  [default: 100]")  # fmt: skip
@click.option("--views", type=int, metavar="N",
              help="Augmented views of each person, beside the plain crop.  [default: 8]"
)  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="Draws the views.  [default: 0]")
@click.option("--sweep", is_flag=True, default=None,
              help="Also what the profiles were chosen among; takes far longer.")  # fmt: skip
@click.option("--output", type=FOLDER, help="Folder for codec.json.")
@teacher_options
@config_options
def benchmark_codec_command(
    config_file: Path | None, overrides: tuple[str, ...], **options: Any
) -> None:
    """Store a teacher's live heatmaps in every profile, and compare size, speed and fidelity.

    Takes COCO keypoint annotations, their images and a teacher; prints a table, and leaves
    codec.json in --output.
    """
    from rich.console import Console

    from pipeline.config import load_config
    from stages.benchmark_codec import BenchmarkCodecConfig, benchmark_codec
    from stages.codec_table import print_codec_study
    from stages.terminal import benchmark_progress

    config = load_config(
        BenchmarkCodecConfig,
        config_file=config_file,
        overrides=overrides,
        fields={**teacher_fields(options), **options},
    )
    with benchmark_progress("views") as on_progress:
        result = benchmark_codec(config, on_progress)
    print_codec_study(Console(), result.study)
    if result.written is not None:
        click.echo(f"wrote {result.written}")


@benchmark.command("crops", short_help="people, teacher -> what crops as JPEG cost and change")
@click.option("--annotations", type=FILE, help="COCO keypoint JSON.")
@click.option("--images", type=FOLDER, help="Folder that its file names are relative to.")
@click.option("--teacher", type=ANY, help="A .onnx file, or a run folder of train-teacher.")
@click.option("--people", "people_count", type=int, metavar="N",
              help="Spread evenly over all people.  [default: 500]")  # fmt: skip
@click.option("--store", type=FOLDER, metavar="PATH",
              help="A store of these images, with crops: measure its loading too.")  # fmt: skip
@click.option("--output", type=FOLDER, help="Folder for crops.json.")
@teacher_options
@config_options
def benchmark_crops_command(
    config_file: Path | None, overrides: tuple[str, ...], **options: Any
) -> None:
    """Show a teacher its crops as they are and as JPEG, and compare AP, keypoints and bytes.

    Takes COCO keypoint annotations, their images and a teacher; prints a table, and leaves
    crops.json in --output.
    """
    from rich.console import Console

    from pipeline.config import load_config
    from stages.benchmark_crops import BenchmarkCropsConfig, benchmark_crops
    from stages.crops_table import print_crop_study
    from stages.terminal import benchmark_progress

    config = load_config(
        BenchmarkCropsConfig,
        config_file=config_file,
        overrides=overrides,
        fields={**teacher_fields(options), **options},
    )
    with benchmark_progress("people") as on_progress:
        result = benchmark_crops(config, on_progress)
    print_crop_study(Console(), result.figures, result.num_people, result.loading)
    if result.written is not None:
        click.echo(f"wrote {result.written}")


@benchmark.command("cache", short_help="people, teacher -> speed of stage one, and its limit")
@click.option("--annotations", type=FILE, help="COCO keypoint JSON.")
@click.option("--images", type=FOLDER, help="Folder that its file names are relative to.")
@click.option("--teacher", type=ANY, help="A .onnx file, or a run folder of train-teacher.")
@click.option("--profile", type=click.Choice(["default", "small", "fast", "lossless-float16"]),
              help="How heatmaps are stored.  [default: default]")  # fmt: skip
@click.option("--people", "people_count", type=int, metavar="N",
              help="Spread evenly over all people.  [default: 226]")  # fmt: skip
@click.option("--views", type=int, metavar="N",
              help="Augmented views of each person, beside the plain crop.  [default: 8]"
)  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="Draws the views.  [default: 0]")
@click.option("--scratch", type=FOLDER,
              help="Stores are written here, measured and deleted.  [default: temporary files']"
)  # fmt: skip
@click.option("--output", type=FOLDER, help="Folder for cache.json.")
@teacher_options
@config_options
def benchmark_cache_command(
    config_file: Path | None, overrides: tuple[str, ...], **options: Any
) -> None:
    """Write a teacher store with a teacher that takes no time and with yours, and time both.

    Takes COCO keypoint annotations, their images and a teacher; prints how near each run came to
    what teacher and cores allow, and leaves cache.json in --output.
    """
    from rich.console import Console

    from pipeline.config import load_config
    from stages.benchmark_cache import BenchmarkCacheConfig, benchmark_cache
    from stages.speed_table import print_speeds
    from stages.terminal import benchmark_progress

    config = load_config(
        BenchmarkCacheConfig,
        config_file=config_file,
        overrides=overrides,
        fields={**teacher_fields(options), **options},
    )
    with benchmark_progress("views") as on_progress:
        result = benchmark_cache(config, on_progress)
    print_speeds(Console(), result.speeds)
    if result.written is not None:
        click.echo(f"wrote {result.written}")


@benchmark.command("store", short_help="teacher stores -> reading speed beside other formats")
@click.option("--store", type=FOLDER, multiple=True, metavar="PATH",
              help="A complete store; repeat it for several profiles.")  # fmt: skip
@click.option("--views", type=int, metavar="N",
              help="Multiply it by hard links to as many.  [default: 100000]")  # fmt: skip
@click.option("--large-views", type=int, metavar="N",
              help="Measure opening and memory at as many too.  [default: 3000000]")  # fmt: skip
@click.option("--images", type=FOLDER, help="The stores' images: also load training batches.")
@click.option("--output", type=FOLDER, help="For store.json, and scratch on the store's disk.")
@config_options
def benchmark_store_command(
    config_file: Path | None, overrides: tuple[str, ...], **options: Any
) -> None:
    """Read random views in fresh processes: distil, raw float16, zarr, and peers if installed.

    Takes teacher stores of real people (make them with cache-teacher); prints tables, and leaves
    store.json in --output.
    """
    from rich.console import Console

    from pipeline.config import load_config
    from stages.benchmark_store import BenchmarkStoreConfig, benchmark_store
    from stages.store_benchmark_table import print_store_benchmark
    from stages.terminal import benchmark_progress

    config = load_config(
        BenchmarkStoreConfig,
        config_file=config_file,
        overrides=overrides,
        fields={**options, "store": options["store"] or None},
    )
    with benchmark_progress("stores") as on_progress:
        result = benchmark_store(config, on_progress)
    print_store_benchmark(Console(), result.figures)
    click.echo(f"wrote {result.written}")
