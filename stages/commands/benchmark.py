"""`distil benchmark` and the commands below it: parse, call one stage, print its result."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from stages.commands.options import (
    FOLDER,
    CommandMap,
    Decorator,
    config_options,
    people_options,
    profile_option,
    stack,
    teacher_fields,
    teacher_options,
    teacher_path_option,
    view_options,
)

if TYPE_CHECKING:  # they take a moment to load, which --help has no use for
    from rich.console import Console

    from pipeline.config import StageConfig
    from pipeline.progress import Progress


class _Written(Protocol):
    """What every measurement is."""

    @property
    def written(self) -> Path | None: ...


ConfigT = TypeVar("ConfigT", bound="StageConfig")
ResultT = TypeVar("ResultT", bound=_Written)


@click.group("benchmark", cls=CommandMap, subcommand_metavar="WHAT ...",
            short_help="people, teacher or store -> figures of this machine")  # fmt: skip
def benchmark() -> None:
    """Measure on your own people and machine what the documentation claims.

    Takes what a command below names; prints tables, and leaves JSON in --output.
    """


_inputs = stack(people_options, teacher_path_option)
_settings = stack(teacher_options, config_options)


def _people_option(default: int) -> Decorator[Any]:
    return click.option(
        "--people", "people_count", type=int, metavar="N",
        help=f"Spread evenly over all people.  [default: {default}]",
    )  # fmt: skip


def _measure(
    stage: Callable[[ConfigT, "Progress"], ResultT],
    settings: type[ConfigT],
    options: dict[str, Any],
    unit: str,
    show: Callable[["Console", ResultT], None],
) -> None:
    """Read the settings of a stage, call it, and show its result.

    unit: what its progress counts.
    """
    from rich.console import Console

    from pipeline.config import load_config
    from stages.commands.terminal import brief_progress

    sources = {name: options.pop(name) for name in ("config_file", "overrides")}
    config = load_config(settings, **sources, fields=options)
    with brief_progress("measuring", unit) as progress:
        result = stage(config, progress)
    show(Console(), result)
    if result.written is not None:
        click.echo(f"wrote {result.written}")


@benchmark.command("codec", short_help="people, teacher -> size, speed, fidelity of heatmap codecs")
@_inputs
@_people_option(100)
@view_options
@click.option("--sweep", is_flag=True, default=None,
              help="Also what the profiles were chosen among; takes far longer.")  # fmt: skip
@click.option("--output", type=FOLDER, help="Folder for codec.json.")
@_settings
def benchmark_codec_command(**options: Any) -> None:
    """Store a teacher's live heatmaps in every profile, and compare size, speed and fidelity.

    Takes COCO keypoint annotations, their images and a teacher; prints a table, and leaves
    codec.json in --output.
    """
    from stages.benchmark_codec import benchmark_codec
    from stages.commands.codec_table import print_codec_study
    from stages.settings.benchmark import BenchmarkCodecConfig

    _measure(
        benchmark_codec,
        BenchmarkCodecConfig,
        {**teacher_fields(options), **options},
        unit="views",
        show=lambda console, result: print_codec_study(console, result.study),
    )


@benchmark.command("crops", short_help="people, teacher -> what crops as JPEG cost and change")
@_inputs
@_people_option(500)
@click.option("--store", type=FOLDER, metavar="PATH",
              help="A store of these images, with crops: measure its loading too.")  # fmt: skip
@click.option("--output", type=FOLDER, help="Folder for crops.json.")
@_settings
def benchmark_crops_command(**options: Any) -> None:
    """Show a teacher its crops as they are and as JPEG, and compare AP, keypoints and bytes.

    Takes COCO keypoint annotations, their images and a teacher; prints a table, and leaves
    crops.json in --output.
    """
    from stages.benchmark_crops import benchmark_crops
    from stages.commands.crops_table import print_crop_study
    from stages.settings.benchmark import BenchmarkCropsConfig

    _measure(
        benchmark_crops,
        BenchmarkCropsConfig,
        {**teacher_fields(options), **options},
        unit="people",
        show=lambda console, result: print_crop_study(
            console, result.figures, result.num_people, result.loading
        ),
    )


@benchmark.command("cache", short_help="people, teacher -> speed of stage one, and its limit")
@_inputs
@profile_option
@_people_option(226)
@view_options
@click.option("--scratch", type=FOLDER,
              help="Stores are written here, measured and deleted.  [default: temporary files']"
)  # fmt: skip
@click.option("--output", type=FOLDER, help="Folder for cache.json.")
@_settings
def benchmark_cache_command(**options: Any) -> None:
    """Write a teacher store with a teacher that takes no time and with yours, and time both.

    Takes COCO keypoint annotations, their images and a teacher; prints how near each run came to
    what teacher and cores allow, and leaves cache.json in --output.
    """
    from stages.benchmark_cache import benchmark_cache
    from stages.commands.speed_table import print_speeds
    from stages.settings.benchmark import BenchmarkCacheConfig

    _measure(
        benchmark_cache,
        BenchmarkCacheConfig,
        {**teacher_fields(options), **options},
        unit="views",
        show=lambda console, result: print_speeds(console, result.speeds),
    )


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
def benchmark_store_command(**options: Any) -> None:
    """Read random views in fresh processes: distil, raw float16, zarr, and peers if installed.

    Takes teacher stores of real people (make them with cache-teacher); prints tables, and leaves
    store.json in --output.
    """
    from stages.benchmark_store import benchmark_store
    from stages.commands.store_benchmark_table import print_store_benchmark
    from stages.settings.benchmark import BenchmarkStoreConfig

    _measure(
        benchmark_store,
        BenchmarkStoreConfig,
        {**options, "store": options["store"] or None},
        unit="stores",
        show=lambda console, result: print_store_benchmark(console, result.figures),
    )
