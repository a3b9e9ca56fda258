"""Student's run, and a teacher or a store -> sheet: truth, poses and heat of the same people."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People, people_of_rows
from pipeline.errors import ConfigError
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import apply, box_to_crop, compose, invert, resize_affine
from pipeline.pictures.beside_teacher import (
    DrawnPose,
    Heat,
    pose_oks,
    simulated_heat,
    tiles_beside_teacher,
)
from pipeline.pictures.contact_sheet import (
    Phrase,
    blocks_for_a_screen,
    contact_sheet,
    write_sheet,
)
from pipeline.pictures.poses import SIDES, Picture
from pipeline.pictures.shown_people import image_folder_of, spread_rows
from pipeline.pictures.teacher_answers import (
    PLAIN_VIEW,
    TeacherAnswers,
    predicted_answers,
    stored_answers,
)
from pipeline.prediction.estimators import StudentEstimator, TeacherEstimator, predict_people
from pipeline.prediction.networks import (
    OpenedNetwork,
    best_weights,
    open_heatmap_teacher,
    open_student,
)
from pipeline.progress import Progress, summed
from pipeline.runs.run_folder import RunFolder
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers.opening import require_same_names
from pipeline.training.images import TrainingImages
from pipeline.training.settings import LossConfig
from stages.run_people import people_of_run
from stages.settings.pictures import ShowStudentConfig
from stages.settings.training import TrainStudentConfig
from store_schemas.errors import IncompleteError
from store_schemas.teacher_store import Status

TILE_HEIGHT = 320
MUCH_BETTER = 0.1
"""Gain in OKS from which a caption says that the student confuses left and right."""

TERMS_OF_SIGMA = ("simulated_heatmap", "moments")
"""Loss terms that teach a student the widths of its Gaussians."""


@dataclass(frozen=True)
class _Source:
    """People that may be drawn, and the store that holds them, if one does."""

    people: People
    image_folder: Path
    name: str
    store: TeacherStore | None
    rows: NDArray[np.int64]
    """Rows of those that may be drawn."""


def show_student(config: ShowStudentConfig, progress: Progress) -> Path:
    """Draw a sheet of a student's poses beside the truth and a teacher's; return where it lies.

    Raises:
        DistilError: the run, the people or the teacher are at fault.
        StoreError: the store is.
    """
    run = RunFolder(config.run_folder).read_config(TrainStudentConfig)
    student = open_student(
        best_weights(config.run_folder), flip_test=True, threshold=None, device=config.device
    )
    assert isinstance(student.estimator, StudentEstimator)
    source = _open_source(config, run, student)
    people = source.people
    if config.worst is None:
        rows = spread_rows(source.rows, config.num_people, config.seed)
        heading = f"{len(rows)} of {people.num_instances:,} people of {source.name}"
    else:
        oks = _student_oks(student, source, progress)
        rows = source.rows[np.argsort(oks, kind="stable")[: config.worst]]
        rows = rows[: np.count_nonzero(~np.isnan(oks))]
        heading = (
            f"The {len(rows)} of {len(oks):,} people of {source.name} with the student's lowest "
            f"OKS; its mean OKS is {np.nanmean(oks):.2f}"
        )
    image_of = [people.image_name[index] for index in people.image_index[rows].tolist()]
    digests = None if source.store is None else source.store.image_sha256
    files = TrainingImages(people, source.image_folder, digests)
    images = [files.read(index) for index in people.image_index[rows].tolist()]
    teacher = _teacher_answers(config, source, rows, images)
    student_poses = _student_poses(student, run.effective_loss, people, rows, images, teacher)
    teacher_poses = _teacher_poses(people, rows, teacher)

    tile_size_hw = _tile_size(student.estimator)
    image_to_tile = box_to_crop(people.bbox_xywh[rows], tile_size_hw, student.padding)
    tiles, captions = [], []
    for place, row in enumerate(rows.tolist()):
        tile = warp_crop(images[place], image_to_tile[place], tile_size_hw)
        tiles.append(
            tiles_beside_teacher(
                tile,
                image_to_tile[place],
                people.keypoints[row],
                people.skeleton,
                student_poses[place],
                teacher_poses[place] if teacher_poses else None,
            )
        )
        rank = "" if config.worst is None else f"{place + 1}. "
        captions.append(
            f"{rank}{image_of[place]}, annotation {people.instance_id[row]}"
            + _note_on_sides(people, row, student_poses[place])
        )
    titles, legend = _explanation(student_poses, teacher_poses)
    heading += f". Student: {config.run_folder}, epoch {student.facts['epoch']}"
    heading += "" if teacher is None else f". Teacher: {teacher.name}"
    num_blocks = blocks_for_a_screen(len(tiles), len(titles), tile_size_hw)
    sheet = contact_sheet(tiles, titles, captions, legend, heading, num_blocks=num_blocks)
    write_sheet(config.output, sheet)
    return config.output


def _open_source(
    config: ShowStudentConfig, run: TrainStudentConfig, student: OpenedNetwork
) -> _Source:
    if config.store is None:
        people, folder, name = people_of_run(
            run, config.run_folder, student.skeleton, config.annotations, config.images
        )
        return _Source(people, folder, name, None, np.arange(people.num_instances))
    store = TeacherStore.open(config.store, config.teacher_name)
    require_same_names(str(config.run_folder), student.skeleton.keypoint_names, store.people)
    rows = np.flatnonzero(store.status[:, PLAIN_VIEW] == Status.OK)
    if not len(rows):
        raise IncompleteError(
            f"{store.path} must hold a person whose plain view is there, but holds none of its "
            f"{store.people.num_instances}; repair their images and write the store again"
        )
    folder = image_folder_of(store, config.images)
    return _Source(store.people, folder, Path(store.path).name, store, rows)


def _student_oks(
    student: OpenedNetwork, source: _Source, progress: Progress
) -> NDArray[np.float64]:
    """Return the OKS of everyone who may be drawn, as ``distil evaluate`` measures it."""
    people = people_of_rows(source.people, source.rows)
    if not people.skeleton.sigmas or not people.is_labelled.any():
        raise ConfigError(
            f"--worst orders people by OKS, but {source.name} has no labelled keypoints, or its "
            "skeleton no sigmas; leave --worst out"
        )
    poses = predict_people(
        student.estimator,
        people,
        source.image_folder,
        padding=student.padding,
        on_progress=summed(progress, people.num_instances),
    )
    return pose_oks(people, np.arange(people.num_instances), poses.keypoints)


def _teacher_answers(
    config: ShowStudentConfig, source: _Source, rows: NDArray[np.int64], images: list[Picture]
) -> TeacherAnswers | None:
    people = source.people
    if source.store is not None:
        return stored_answers(source.store, rows)
    if config.teacher is None:
        return None
    settings = config.teacher_settings.model_copy(update={"device": config.device})
    opened = open_heatmap_teacher(config.teacher, people.skeleton, settings, threshold=None)
    require_same_names(str(config.teacher), opened.skeleton.keypoint_names, people)
    assert isinstance(opened.estimator, TeacherEstimator)
    return predicted_answers(
        opened.estimator, config.teacher.name, opened.padding, images, people.bbox_xywh[rows]
    )


def _student_poses(
    student: OpenedNetwork,
    loss: LossConfig,
    people: People,
    rows: NDArray[np.int64],
    images: list[Picture],
    teacher: TeacherAnswers | None,
) -> list[DrawnPose]:
    """Predict these people; with heat where a loss taught it, in the cells of the teacher's."""
    estimator = student.estimator
    assert isinstance(estimator, StudentEstimator)
    size_hw = estimator.input_size_hw
    image_to_crop = box_to_crop(people.bbox_xywh[rows], size_hw, student.padding)
    pairs = zip(images, image_to_crop, strict=True)
    crops = np.stack([warp_crop(image, affine, size_hw) for image, affine in pairs])
    keypoints = apply(invert(image_to_crop), estimator.estimate(crops).keypoints)
    oks = pose_oks(people, rows, keypoints)
    if teacher is None or loss.terms.keys().isdisjoint(TERMS_OF_SIGMA):
        return [DrawnPose(*pose) for pose in zip(keypoints, oks.tolist(), strict=True)]
    affine = compose(teacher.crop_to_heatmap, resize_affine(size_hw, teacher.input_size_hw))
    cells_hw = teacher.heatmaps.shape[-2], teacher.heatmaps.shape[-1]
    heat = simulated_heat(estimator, crops, affine, cells_hw, loss.sigma_floor)
    labels = [f"median sigma {sigma:.2f} cells" for sigma in heat.sigmas.tolist()]
    maps = zip(heat.heatmaps, compose(affine, image_to_crop), labels, strict=True)
    return [
        DrawnPose(points, value, Heat(*of_person))
        for points, value, of_person in zip(keypoints, oks.tolist(), maps, strict=True)
    ]


def _teacher_poses(
    people: People, rows: NDArray[np.int64], teacher: TeacherAnswers | None
) -> list[DrawnPose]:
    if teacher is None:
        return []
    oks = pose_oks(people, rows, teacher.keypoints)
    labels = [f"mean confidence {value:.2f}" for value in teacher.confidences.mean(axis=1)]
    maps = zip(teacher.heatmaps, teacher.image_to_heatmap, labels, strict=True)
    return [
        DrawnPose(points, value, Heat(*of_person))
        for points, value, of_person in zip(teacher.keypoints, oks.tolist(), maps, strict=True)
    ]


def _note_on_sides(people: People, row: int, pose: DrawnPose) -> str:
    """Return the part of a caption that says that left and right are confused, if they are."""
    swapped = pose.keypoints[list(people.skeleton.flip_indices)]
    oks = float(pose_oks(people, np.array([row]), swapped[None])[0])
    if not oks > pose.oks + MUCH_BETTER:
        return ""
    return f": with left and right exchanged the student's OKS would be {oks:.2f}"


def _explanation(
    student: list[DrawnPose], teacher: list[DrawnPose]
) -> tuple[list[str], list[Phrase]]:
    """Return the titles of the columns, and the legend of what they show."""
    titles = ["truth", "student", *(["teacher"] if teacher else [])]
    legend = [*SIDES, ("rings: the truth", None), ("dots and limbs: the prediction", None)]
    if any(pose.heat for pose in student):
        titles.append("student's simulated heatmaps")
        legend += [
            ("simulated heatmaps: Gaussians of the student's keypoints and sigmas", None),
            ("a sigma below half a cell lights hardly any cell", None),
        ]
    if teacher:
        titles.append("teacher's heatmaps")
    return titles, legend


def _tile_size(estimator: StudentEstimator) -> tuple[int, int]:
    height, width = estimator.input_size_hw
    return TILE_HEIGHT, round(TILE_HEIGHT * width / height)
