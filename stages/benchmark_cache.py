"""People and a teacher -> speed of stage one on this machine, and the limit of that speed."""

from dataclasses import asdict

from pipeline.benchmarks.caching_speed import Speed, measure_speed, null_teacher
from pipeline.benchmarks.figures import Measured, write_figures
from pipeline.caching.inputs import open_inputs
from pipeline.frames.views import draw_views
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.teachers.checks import measure_units
from pipeline.teachers.probe import take_probe
from stages.settings.benchmark import BenchmarkCacheConfig
from store_schemas.formats import profile_named


def benchmark_cache(
    config: BenchmarkCacheConfig, progress: Progress = NO_PROGRESS
) -> Measured[tuple[Speed, ...]]:
    """Write stores of some people with a null teacher and with the given one, and time both.

    progress: counts views.
    Returns speeds with the null teacher, and with the given one.

    Raises:
        PeopleError: annotations or images contradict themselves.
        TeacherError: the teacher cannot be loaded, or does not fit the people.
    """
    people, teacher = open_inputs(config)
    plain = draw_views(people, config.recipe, config.seed, 0, teacher.input_size_hw).image_to_crop
    probe = take_probe(teacher, people, config.images, plain)
    threshold = measure_units(probe, profile_named(config.profile, teacher.input_size_hw)).threshold
    num_people = min(config.people_count, people.num_instances)
    # what is done twice to warm up is not in the total
    add = summed(progress, 2 * num_people * (config.views + 1))
    speeds = tuple(
        measure_speed(
            name, config, people, timed, probe, threshold, num_people, config.scratch, add
        )
        for name, timed in (("null", null_teacher(teacher, probe)), ("given", teacher))
    )
    document = [
        {
            **asdict(speed),
            "views_per_second_and_core": speed.views_per_second_and_core,
            "limit_seconds": speed.limit_seconds,
            "ratio": speed.ratio,
        }
        for speed in speeds
    ]
    file = write_figures(config.output, "cache.json", config, {"speeds": document})
    return Measured(speeds, file)
