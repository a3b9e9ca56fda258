"""People and a teacher -> what storing crops as JPEG changes, and what loading them saves."""

from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.benchmarks.crop_study import CropFigures, study_crops
from pipeline.benchmarks.fidelity import study_people
from pipeline.benchmarks.figures import write_figures
from pipeline.benchmarks.processes import CropLoading, in_fresh_process, measure_crop_loading
from pipeline.coco.people import spread_rows
from pipeline.coco.read_people import read_people
from pipeline.coco.skeletons import oks_sigmas
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.teachers.opening import open_fitting_teacher
from stages.settings.benchmark import BenchmarkCropsConfig


@dataclass(frozen=True)
class CropBenchmark:
    """Figures of the benchmark, and the file that holds them."""

    num_people: int
    figures: list[CropFigures]
    loading: CropLoading | None
    written: Path | None


def benchmark_crops(
    config: BenchmarkCropsConfig, progress: Progress = NO_PROGRESS
) -> CropBenchmark:
    """Predict from crops as they are and as JPEG, and compare AP, keypoints and bytes.

    progress: counts people.

    Raises:
        PeopleError: annotations or images contradict themselves.
        TeacherError: the teacher cannot be loaded, or does not fit the people.
        StoreError: the store cannot be read.
        ConfigError: it has no crops.
    """
    people = read_people(config.annotations, config.images, config.people)
    oks_sigmas(people.skeleton)
    teacher = open_fitting_teacher(config.teacher, people, config.teacher_settings)
    rows = spread_rows(people.num_instances, config.people_count)
    studied = study_people(people, rows, teacher, config.recipe)
    figures = study_crops(teacher, studied, config.images, summed(progress, len(rows)))
    loading = None
    if config.store is not None:
        loading = in_fresh_process(measure_crop_loading, config.store, config.images)
    written = _write(config, len(rows), figures, loading)
    return CropBenchmark(len(rows), figures, loading, written)


def _write(
    config: BenchmarkCropsConfig,
    num_people: int,
    figures: list[CropFigures],
    loading: CropLoading | None,
) -> Path | None:
    if config.output is None:
        return None
    document = {
        "num_people": num_people,
        "figures": [asdict(found) for found in figures],
        "loading": None if loading is None else asdict(loading),
    }
    return write_figures(config.output / "crops.json", config, document)
