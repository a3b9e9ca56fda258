"""People and a teacher -> what every way to store its heatmaps costs and changes."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.codec_study.candidates import profile_candidates, search_space
from pipeline.codec_study.fidelity import StudiedPeople, people_of_rows
from pipeline.codec_study.study import CandidateFigures, CodecStudy, study_codecs
from pipeline.codec_study.teacher_maps import spread_rows, stream_teacher_maps
from pipeline.config import StageConfig
from pipeline.evaluation.coco_evaluation import oks_sigmas
from pipeline.evaluation.evaluated_networks import require_same_names
from pipeline.file_layer import make_folder, publish
from pipeline.frames.views import ViewRecipe, draw_views
from pipeline.provenance import provenance
from pipeline.teachers import TeacherSettings, open_teacher
from pipeline.teachers.checks import measure_units
from pipeline.teachers.probe import take_probe
from pipeline.teachers.teacher import require_keypoints
from store_schemas.profiles import DEFAULT_PROFILE, PROFILES

OnProgress = Callable[[int, int], None]
"""Told how many views are done, and how many there will be."""


class BenchmarkCodecConfig(StageConfig):
    """All settings of ``distil benchmark codec``."""

    annotations: Path
    images: Path
    teacher: Path
    people_count: int = Field(100, ge=1)
    """Spread evenly over all people."""
    views: int = Field(8, ge=0)
    """Augmented views of each, beside the evaluation crop."""
    seed: int = Field(0, ge=0)
    """Draws the views."""
    sweep: bool = False
    """The whole search space, not the profiles alone."""
    output: Path | None = None
    """Folder for codec.json."""
    recipe: ViewRecipe = ViewRecipe()
    teacher_settings: TeacherSettings = TeacherSettings()
    people: PeopleSettings = PeopleSettings()


@dataclass(frozen=True)
class CodecBenchmark:
    """What was measured, and where it was written."""

    study: CodecStudy
    written: Path | None


def benchmark_codec(
    config: BenchmarkCodecConfig, on_progress: OnProgress = lambda *_: None
) -> CodecBenchmark:
    """Store a teacher's live maps of some people in many ways and compare size, speed and fidelity.

    Raises:
        PeopleError: annotations or images contradict themselves.
        TeacherError: the teacher cannot be loaded, or does not fit the people.
    """
    people = read_people(config.annotations, config.images, config.people)
    oks_sigmas(people.skeleton)
    teacher = open_teacher(config.teacher, config.teacher_settings)
    require_keypoints(teacher, people.skeleton.keypoint_names)
    if teacher.network.keypoint_names is not None:
        require_same_names(str(config.teacher), teacher.network.keypoint_names, people)

    size_hw = teacher.input_size_hw
    plain = draw_views(people, config.recipe, config.seed, 0, size_hw).image_to_crop
    probe = take_probe(teacher, people, config.images, plain)
    typical_peak = measure_units(probe, PROFILES[DEFAULT_PROFILE]).typical_peak

    rows = spread_rows(people.num_instances, config.people_count)
    chosen = people_of_rows(people, rows)
    views = draw_views(chosen, config.recipe, config.seed, config.views, size_hw).image_to_crop
    studied = StudiedPeople(chosen, views, teacher.crop_to_heatmap, size_hw, config.recipe.padding)
    total, done = len(rows) * (config.views + 1), 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total)

    study = study_codecs(
        stream_teacher_maps(teacher, people, config.images, rows, views),
        studied,
        search_space() if config.sweep else profile_candidates(),
        typical_peak,
        add,
    )
    return CodecBenchmark(study, _write(config, study))


def _write(config: BenchmarkCodecConfig, study: CodecStudy) -> Path | None:
    if config.output is None:
        return None
    make_folder(config.output)
    path = config.output / "codec.json"
    document = {
        "config": json.loads(config.to_json()),
        "provenance": provenance(),
        "typical_peak": study.typical_peak,
        "num_people": study.num_people,
        "num_views": study.num_views,
        "raw_float16_bytes": study.raw_bytes,
        "candidates": [_figures_json(figures) for figures in study.figures],
    }
    publish(path, (json.dumps(document, indent=1) + "\n").encode())
    return path


def _figures_json(figures: CandidateFigures) -> dict[str, Any]:
    return {"name": figures.candidate.name, **asdict(figures)}
