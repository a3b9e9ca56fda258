"""People and a teacher -> speed of stage one on this machine, and the limit of that speed."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.benchmarks.caching_speed import Speed, measure_speed, null_teacher
from pipeline.benchmarks.figures import write_figures
from pipeline.caching.inputs import open_inputs
from pipeline.frames.views import draw_views
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.teachers.checks import measure_units, take_probe
from pipeline.wording import Log
from stages.settings.benchmark import BenchmarkCacheConfig
from store_schemas.profiles import profile_named


@dataclass(frozen=True)
class CacheBenchmark:
    """Figures of the benchmark, and the file that holds them."""

    speeds: tuple[Speed, ...]
    """Speeds with the null teacher, and with the given one."""
    written: Path | None


def benchmark_cache(
    config: BenchmarkCacheConfig,
    progress: Progress = NO_PROGRESS,
    say: Log = lambda _: None,
) -> CacheBenchmark:
    """Write stores of some people with a null teacher and with the given one, and time both.

    progress: counts views.

    Raises:
        PeopleError: annotations or images contradict themselves.
        TeacherError: the teacher cannot be loaded, or does not fit the people.
    """
    people, teacher = open_inputs(config, say)
    plain = draw_views(people, config.recipe, config.seed, 0, teacher.input_size_hw).image_to_crop
    probe = take_probe(teacher, people, config.images, plain)
    threshold = measure_units(probe, profile_named(config.profile)).threshold
    num_people = min(config.people_count, people.num_instances)
    # what is done twice to warm up is not in the total
    add = summed(progress, 2 * num_people * (config.views + 1))
    speeds = tuple(
        measure_speed(
            name,
            config,
            people,
            timed,
            probe,
            threshold,
            num_people,
            scratch=config.scratch,
            on_progress=add,
        )
        for name, timed in (
            ("null", null_teacher(teacher, probe)),
            ("given", teacher),
        )
    )
    return CacheBenchmark(speeds, _write(config, speeds))


def _write(config: BenchmarkCacheConfig, speeds: tuple[Speed, ...]) -> Path | None:
    if config.output is None:
        return None
    document = {"speeds": [_speed_json(speed) for speed in speeds]}
    return write_figures(config.output / "cache.json", config, document)


def _speed_json(speed: Speed) -> dict[str, Any]:
    return {
        **asdict(speed),
        "views_per_second_and_core": speed.views_per_second_and_core,
        "limit_seconds": speed.limit_seconds,
        "ratio": speed.ratio,
    }
