"""People and a teacher -> what storing crops as JPEG changes, and what loading them saves."""

from dataclasses import asdict

from pipeline.benchmarks.crop_study import CropStudy, study_crops
from pipeline.benchmarks.fidelity import study_people
from pipeline.benchmarks.figures import Measured, write_figures
from pipeline.benchmarks.processes import in_fresh_process, measure_crop_loading
from pipeline.coco.people import spread_rows
from pipeline.coco.read_people import read_people
from pipeline.coco.skeletons import oks_sigmas
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.teachers.opening import open_fitting_teacher
from stages.settings.benchmark import BenchmarkCropsConfig


def benchmark_crops(
    config: BenchmarkCropsConfig, progress: Progress = NO_PROGRESS
) -> Measured[CropStudy]:
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
    study = CropStudy(len(rows), figures, loading)
    return Measured(study, write_figures(config.output, "crops.json", config, asdict(study)))
