"""People and a teacher -> size, speed and fidelity of ways to store its heatmaps."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.benchmarks.codec_candidates import profile_candidates, search_space
from pipeline.benchmarks.codec_study import CandidateFigures, CodecStudy, study_codecs
from pipeline.benchmarks.fidelity import stream_teacher_maps, study_people
from pipeline.benchmarks.figures import write_figures
from pipeline.coco.people import spread_rows
from pipeline.coco.read_people import read_people
from pipeline.coco.skeletons import oks_sigmas
from pipeline.frames.views import draw_views
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.teachers.checks import measure_units, take_probe
from pipeline.teachers.opening import open_fitting_teacher
from stages.settings.benchmark import BenchmarkCodecConfig
from store_schemas.profiles import DEFAULT_PROFILE, PROFILES


@dataclass(frozen=True)
class CodecBenchmark:
    """Figures of the benchmark, and the file that holds them."""

    study: CodecStudy
    written: Path | None


def benchmark_codec(
    config: BenchmarkCodecConfig, progress: Progress = NO_PROGRESS
) -> CodecBenchmark:
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
    return CodecBenchmark(study, _write(config, study))


def _write(config: BenchmarkCodecConfig, study: CodecStudy) -> Path | None:
    if config.output is None:
        return None
    document = {
        "typical_peak": study.typical_peak,
        "num_people": study.num_people,
        "num_views": study.num_views,
        "raw_float16_bytes": study.raw_bytes,
        "candidates": [_figures_json(figures) for figures in study.figures],
    }
    return write_figures(config.output / "codec.json", config, document)


def _figures_json(figures: CandidateFigures) -> dict[str, Any]:
    return {"name": figures.candidate.name, **asdict(figures)}
