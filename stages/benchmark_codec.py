"""People and a teacher -> size, speed and fidelity of ways to store its heatmaps."""

from dataclasses import asdict

from pipeline.benchmarks.codec_study import (
    CodecStudy,
    profile_candidates,
    search_space,
    study_codecs,
)
from pipeline.benchmarks.fidelity import stream_teacher_maps, study_people
from pipeline.benchmarks.figures import Measured, write_figures
from pipeline.coco.people import spread_rows
from pipeline.coco.read_people import read_people
from pipeline.coco.skeletons import oks_sigmas
from pipeline.frames.views import draw_views
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.teachers.checks import measure_units
from pipeline.teachers.opening import open_fitting_teacher
from pipeline.teachers.probe import take_probe
from stages.settings.benchmark import BenchmarkCodecConfig
from store_schemas.formats import DEFAULT_PROFILE, PROFILES


def benchmark_codec(
    config: BenchmarkCodecConfig, progress: Progress = NO_PROGRESS
) -> Measured[CodecStudy]:
    """Store a teacher's live maps of some people in many ways and compare size, speed and fidelity.

    progress: counts views.

    Raises:
        PeopleError: annotations or images contradict themselves.
        TeacherError: the teacher cannot be loaded, or does not fit the people.
    """
    people = read_people(config.annotations, config.images, config.people)
    oks_sigmas(people.skeleton)
    teacher = open_fitting_teacher(config.teacher, people, config.teacher_settings)

    plain = draw_views(people, config.recipe, config.seed, 0, teacher.input_size_hw).image_to_crop
    probe = take_probe(teacher, people, config.images, plain)
    typical_peak = measure_units(probe, PROFILES[DEFAULT_PROFILE]).typical_peak

    rows = spread_rows(people.num_instances, config.people_count)
    studied = study_people(people, rows, teacher, config.recipe, config.seed, config.views)
    study = study_codecs(
        stream_teacher_maps(teacher, studied, config.images),
        studied,
        search_space() if config.sweep else profile_candidates(),
        typical_peak,
        summed(progress, len(rows) * studied.num_views),
    )
    document = {
        "typical_peak": study.typical_peak,
        "num_people": study.num_people,
        "num_views": study.num_views,
        "raw_float16_bytes": study.raw_bytes,
        "candidates": [{"name": one.candidate.name, **asdict(one)} for one in study.figures],
    }
    return Measured(study, write_figures(config.output, "codec.json", config, document))
