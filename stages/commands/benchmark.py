"""`distil benchmark` and the commands below it: parse, call one stage, print its result."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from pipeline.config import StageConfig
from pipeline.progress import Progress
from stages.commands.command_map import CommandMap, Decorator
from stages.commands.options import (
    config_options,
    configured,
    options_of,
    people_options,
    setting_option,
    teacher_options,
)
from stages.settings.benchmark import (
    BenchmarkCacheConfig,
    BenchmarkCodecConfig,
    BenchmarkCropsConfig,
    BenchmarkStoreConfig,
)

if TYPE_CHECKING:  # it takes a moment to load, which --help has no use for
    from rich.console import Console

_PEOPLE = {"--people": "people_count"}
_VIEWS = {"--views": "views", "--seed": "seed"}


class _Written(Protocol):
    """The result of every measurement."""

    @property
    def written(self) -> Path | None: ...


ConfigT = TypeVar("ConfigT", bound=StageConfig)
ResultT = TypeVar("ResultT", bound=_Written)


@click.group("benchmark", cls=CommandMap, subcommand_metavar="WHAT ...")
def benchmark() -> None:
    """Measure on your own people and machine what the documentation claims.

    Takes what a command below names; prints tables, and writes JSON in --output.
    """


def _inputs(model: type[StageConfig]) -> Decorator[Any]:
    def decorate(command: Any) -> Any:
        return people_options(model)(setting_option(model, "teacher", "--teacher")(command))

    return decorate


def _measure(
    stage: Callable[[ConfigT, Progress], ResultT],
    config: ConfigT,
    unit: str,
    show: Callable[["Console", ResultT], None],
) -> None:
    """Call a stage, and show its result.

    unit: what its progress counts.
    """
    from rich.console import Console

    from stages.commands.terminal import brief_progress

    with brief_progress("measuring", unit) as progress:
        result = stage(config, progress)
    show(Console(), result)
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

    _measure(
        benchmark_codec,
        config,
        unit="views",
        show=lambda console, result: print_codec_study(console, result.study),
    )


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

    _measure(
        benchmark_crops,
        config,
        unit="people",
        show=lambda console, result: print_crop_study(
            console, result.figures, result.num_people, result.loading
        ),
    )


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

    _measure(
        benchmark_cache,
        config,
        unit="views",
        show=lambda console, result: print_speeds(console, result.speeds),
    )


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

    _measure(
        benchmark_store,
        config,
        unit="stores",
        show=lambda console, result: print_store_benchmark(console, result.figures),
    )
