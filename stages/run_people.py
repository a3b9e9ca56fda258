"""The people that a picture or a report of a run shows: those of its validation, or others."""

from dataclasses import replace
from pathlib import Path

from pipeline.coco.people import People
from pipeline.coco.read_people import read_people
from pipeline.errors import ConfigError
from pipeline.teachers.opening import require_same_names
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig
from store_schemas.people import Skeleton


def people_of_run(
    run: TrainStudentConfig | TrainTeacherConfig,
    run_folder: Path,
    skeleton: Skeleton,
    annotations: Path | None,
    images: Path | None,
) -> tuple[People, Path, str]:
    """Read the people of an annotation file: the one given, or the one of the run's validation.

    For a teacher, whose training has no validation, it is the one that it was trained on.

    run: the configuration of the run in ``run_folder``.
    skeleton: the keypoints of the run's network; its sigmas stand in for those that the annotations
        lack.
    Returns the people, the folder of their images, and the name of the annotation file.

    Raises:
        ConfigError: the run names no annotations, or they are not where they were.
        PeopleError: the annotations have other keypoints.
    """
    if isinstance(run, TrainStudentConfig):
        path, folder = run.val_annotations, run.val_images or run.images
    else:
        path, folder = run.annotations, run.images
    path, folder = annotations or path, images or folder
    if path is None or folder is None:
        raise ConfigError(
            f"the run {run_folder} was not validated while it was trained, so it names no people "
            "to draw; give --annotations and --images"
        )
    for place, option in ((path, "--annotations"), (folder, "--images")):
        if not place.exists():
            raise ConfigError(
                f"the run {run_folder} names {place}, but it is not there; give {option}"
            )
    people = read_people(path, folder, run.people)
    require_same_names(str(run_folder), skeleton.keypoint_names, people)
    if not people.skeleton.sigmas:
        people = replace(people, skeleton=replace(people.skeleton, sigmas=skeleton.sigmas))
    return people, folder, path.name
