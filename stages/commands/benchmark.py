"""`distil benchmark` and the commands below it: parse, call one stage, print its result."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.config import StageConfig
from pipeline.progress import Progress
from stages.commands.command_map import CommandMap, Decorator
from stages.commands.options import (
    config_options,
    configured,
    device_option,
    options_of,
    people_options,
    setting_option,
    stack,
    teacher_options,
)
from stages.settings.benchmark import (
    BenchmarkCacheConfig,
    BenchmarkCodecConfig,
    BenchmarkCropsConfig,
    BenchmarkStoreConfig,
)

if TYPE_CHECKING:  # they take a moment to load, which --help has no use for
    from rich.console import Console

    from pipeline.benchmarks.figures import Measured

ConfigT = TypeVar("ConfigT", bound=StageConfig)
FiguresT = TypeVar("FiguresT")
_PEOPLE = {"--people": "people_count"}
_VIEWS = {"--views": "views", "--seed": "seed"}


@click.group("benchmark", cls=CommandMap, subcommand_metavar="WHAT ...")
def benchmark() -> None:
    """Measure on your own people and machine what the documentation claims.

    Takes what a command below names; prints tables, and writes JSON in --output.
    """


def _inputs(model: type[StageConfig]) -> Decorator[Any]:
    return stack(
        people_options(model),
        setting_option(model, "teacher", "--teacher"),
        device_option(model, "teacher_settings.device"),
    )


def _measure(
    stage: "Callable[[ConfigT, Progress], Measured[FiguresT]]",
    config: ConfigT,
    unit: str,
    show: "Callable[[Console, FiguresT], None]",
) -> None:
    """Call a stage, and show its figures.

    unit: what its progress counts.
    """
    from rich.console import Console

    from stages.commands.terminal import brief_progress

    with brief_progress("measuring", unit) as progress:
        result = stage(config, progress)
    show(Console(), result.figures)
    if result.written is not None:
        click.echo(f"wrote {result.written}")


@benchmark.command("codec", short_help="people, teacher -> size, speed, fidelity of heatmap codecs")
@_inputs(BenchmarkCodecConfig)
@options_of(BenchmarkCodecConfig, {**_PEOPLE, **_VIEWS, "--sweep": "sweep", "--output": "output"})
@teacher_options(BenchmarkCodecConfig)
@config_options
def benchmark_codec_command(**options: Any) -> None:
    """Store a teacher's live heatmaps in every profile, and compare size, speed and fidelity.

    Takes COCO keypoint annotations, their images and a teacher; prints a table, and writes
    codec.json in --output.
    """
    config = configured(BenchmarkCodecConfig, options)

    from stages.benchmark_codec import benchmark_codec
    from stages.commands.benchmark_tables import print_codec_study

    _measure(benchmark_codec, config, "views", print_codec_study)


@benchmark.command("crops", short_help="people, teacher -> what crops as JPEG cost and change")
@_inputs(BenchmarkCropsConfig)
@options_of(BenchmarkCropsConfig, _PEOPLE)
@setting_option(BenchmarkCropsConfig, "store", "--store", metavar="PATH")
@setting_option(BenchmarkCropsConfig, "output", "--output")
@teacher_options(BenchmarkCropsConfig)
@config_options
def benchmark_crops_command(**options: Any) -> None:
    """Let a teacher predict crops as they are and as JPEG, and compare AP, keypoints and bytes.

    Takes COCO keypoint annotations, their images and a teacher; prints a table, and writes
    crops.json in --output.
    """
    config = configured(BenchmarkCropsConfig, options)

    from stages.benchmark_crops import benchmark_crops
    from stages.commands.benchmark_tables import print_crop_study

    _measure(benchmark_crops, config, "people", print_crop_study)


@benchmark.command("cache", short_help="people, teacher -> speed of stage one, and its limit")
@_inputs(BenchmarkCacheConfig)
@options_of(
    BenchmarkCacheConfig,
    {"--profile": "profile", **_PEOPLE, **_VIEWS, "--scratch": "scratch", "--output": "output"},
)
@teacher_options(BenchmarkCacheConfig)
@config_options
def benchmark_cache_command(**options: Any) -> None:
    """Write a teacher store with a teacher that takes no time and with yours, and time both.

    Takes COCO keypoint annotations, their images and a teacher; prints how near each run came to
    what teacher and cores allow, and writes cache.json in --output.
    """
    config = configured(BenchmarkCacheConfig, options)

    from stages.benchmark_cache import benchmark_cache
    from stages.commands.benchmark_tables import print_speeds

    _measure(benchmark_cache, config, "views", print_speeds)


@benchmark.command("store", short_help="teacher stores -> reading speed beside other formats")
@setting_option(BenchmarkStoreConfig, "store", "--store", multiple=True, metavar="PATH",
                callback=lambda _, __, stores: stores or None)  # fmt: skip
@options_of(
    BenchmarkStoreConfig,
    {
        "--views": "views",
        "--large-views": "large_views",
        "--images": "images",
        "--output": "output",
    },
)
@config_options
def benchmark_store_command(**options: Any) -> None:
    """Read random views in fresh processes: distil, raw float16, zarr, and peers if installed.

    Takes teacher stores of real people (make them with cache-teacher); prints tables, and writes
    store.json in --output.
    """
    config = configured(BenchmarkStoreConfig, options)

    from stages.benchmark_store import benchmark_store
    from stages.commands.benchmark_tables import print_store_benchmark

    _measure(benchmark_store, config, "stores", print_store_benchmark)
