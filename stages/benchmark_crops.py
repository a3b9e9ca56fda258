"""People and a teacher -> what keeping its crops as JPEG changes; and what loading them saves."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import Field

from pipeline.benchmarks.crop_loading import CropLoading, measure_crop_loading
from pipeline.benchmarks.processes import in_fresh_process
from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.codec_study.crop_study import CropFigures, study_crops
from pipeline.codec_study.fidelity import StudiedPeople, people_of_rows
from pipeline.codec_study.teacher_maps import spread_rows
from pipeline.config import StageConfig
from pipeline.evaluation.coco_evaluation import oks_sigmas
from pipeline.evaluation.evaluated_networks import require_same_names
from pipeline.file_layer import make_folder, publish
from pipeline.frames.views import ViewRecipe, draw_views
from pipeline.provenance import provenance
from pipeline.teachers import TeacherSettings, open_teacher
from pipeline.teachers.teacher import require_keypoints

OnProgress = Callable[[int, int], None]
"""Told how many people are done, and how many there will be."""


class BenchmarkCropsConfig(StageConfig):
    """All settings of ``distil benchmark crops``."""

    annotations: Path
    images: Path
    teacher: Path
    people_count: int = Field(500, ge=1)
    """Spread evenly over all people."""
    store: Path | None = None
    """A store of these images with crops: its loading is measured too."""
    output: Path | None = None
    """Folder for crops.json."""
    recipe: ViewRecipe = ViewRecipe()
    teacher_settings: TeacherSettings = TeacherSettings()
    people: PeopleSettings = PeopleSettings()


@dataclass(frozen=True)
class CropBenchmark:
    """What was measured, and where it was written."""

    num_people: int
    figures: list[CropFigures]
    loading: CropLoading | None
    written: Path | None


def benchmark_crops(
    config: BenchmarkCropsConfig, on_progress: OnProgress = lambda *_: None
) -> CropBenchmark:
    """Show a teacher crops as they are and as JPEG, and compare AP, keypoints and bytes.

    Raises:
        PeopleError: annotations or images contradict themselves.
        TeacherError: the teacher cannot be loaded, or does not fit the people.
        StoreError: the store cannot be read.
        ConfigError: it has no crops.
    """
    people = read_people(config.annotations, config.images, config.people)
    oks_sigmas(people.skeleton)
    teacher = open_teacher(config.teacher, config.teacher_settings)
    require_keypoints(teacher, people.skeleton.keypoint_names)
    if teacher.network.keypoint_names is not None:
        require_same_names(str(config.teacher), teacher.network.keypoint_names, people)
    chosen = people_of_rows(people, spread_rows(people.num_instances, config.people_count))
    size_hw = teacher.input_size_hw
    plain = draw_views(chosen, config.recipe, 0, 0, size_hw).image_to_crop
    studied = StudiedPeople(chosen, plain, teacher.crop_to_heatmap, size_hw, config.recipe.padding)
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, chosen.num_instances)

    figures = study_crops(teacher, studied, config.images, add)
    loading = None
    if config.store is not None:
        loading = in_fresh_process(measure_crop_loading, config.store, config.images)
    written = _write(config, chosen.num_instances, figures, loading)
    return CropBenchmark(chosen.num_instances, figures, loading, written)


def _write(
    config: BenchmarkCropsConfig,
    num_people: int,
    figures: list[CropFigures],
    loading: CropLoading | None,
) -> Path | None:
    if config.output is None:
        return None
    make_folder(config.output)
    path = config.output / "crops.json"
    document = {
        "config": json.loads(config.to_json()),
        "provenance": provenance(),
        "num_people": num_people,
        "figures": [asdict(found) for found in figures],
        "loading": None if loading is None else asdict(loading),
    }
    publish(path, (json.dumps(document, indent=1) + "\n").encode())
    return path
