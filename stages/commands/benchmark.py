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
    BenchmarkInferenceConfig,
    BenchmarkLoaderConfig,
    BenchmarkStoreConfig,
    BenchmarkTrainConfig,
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


@benchmark.command("train", short_help="student, teacher -> training steps beside their limits")
@setting_option(BenchmarkTrainConfig, "students", "--student", multiple=True, type=str,
                callback=lambda _, __, names: names or None)  # fmt: skip
@options_of(
    BenchmarkTrainConfig,
    {
        "--teacher": "teacher",
        "--batch-size": "batch_size",
        "--loop-batch-size": "loop_batch_size",
        "--rounds": "rounds",
        "--device": "device",
        "--precision": "precision",
        "--threads": "num_threads",
        "--output": "output",
    },
)
@config_options
def benchmark_train_command(**options: Any) -> None:
    """Time training steps: plain, distilled, with the teacher in the loop, in two processes.

    Takes names of architectures, whose weights are random; prints each figure beside its limit, and
    writes train.json in --output.
    """
    config = configured(BenchmarkTrainConfig, options)

    from stages.benchmark_train import benchmark_train
    from stages.commands.limit_tables import print_train_figures

    _measure(benchmark_train, config, "measurements", print_train_figures)


@benchmark.command("loader", short_help="teacher store -> how busy a training from crops is")
@options_of(
    BenchmarkLoaderConfig,
    {
        "--store": "store",
        "--student": "student",
        "--batch-size": "batch_size",
        "--workers": "num_loader_workers",
        "--steps": "steps",
        "--device": "device",
        "--threads": "num_threads",
        "--output": "output",
    },
)
@setting_option(BenchmarkLoaderConfig, "people", "--people", type=int, multiple=True,
                callback=lambda _, __, sizes: sizes or None)  # fmt: skip
@config_options
def benchmark_loader_command(**options: Any) -> None:
    """Train from the crops of a store, and load epochs of a thousand to a million people.

    Takes a teacher store with crops and augmented views; writes loader.json in --output, and prints
    the share of the time that the training did not wait for data and what epochs cost.
    """
    config = configured(BenchmarkLoaderConfig, options)

    from stages.benchmark_loader import benchmark_loader
    from stages.commands.limit_tables import print_loader_figures

    _measure(benchmark_loader, config, "measurements", print_loader_figures)


@benchmark.command("inference", short_help="student, teacher -> ms a person, in one runtime")
@options_of(
    BenchmarkInferenceConfig,
    {"--student": "student", "--teacher": "teacher", "--rounds": "rounds", "--output": "output"},
)
@config_options
def benchmark_inference_command(**options: Any) -> None:
    """Time a student and a teacher as ONNX, at batch 1 and 64, beside their multiply-adds.

    Takes names of architectures, whose weights are random; prints a table, and writes
    inference.json in --output.
    """
    config = configured(BenchmarkInferenceConfig, options)

    from stages.benchmark_inference import benchmark_inference
    from stages.commands.limit_tables import print_inference_figures

    _measure(benchmark_inference, config, "measurements", print_inference_figures)
