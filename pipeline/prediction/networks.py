"""A student or a teacher opened for prediction, with the settings that its own file states."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.coco.people import Skeleton
from pipeline.coco.poses import ScoreRule
from pipeline.errors import RunFolderError
from pipeline.export.student_file import StudentFile
from pipeline.machine import available_cores, choose_device
from pipeline.models.pose_networks import Student
from pipeline.prediction.estimators import (
    ExportedEstimator,
    PoseEstimator,
    StudentEstimator,
    TeacherEstimator,
)
from pipeline.runs.checkpoints import CheckpointInfo, read_info
from pipeline.runs.published_files import load_student
from pipeline.runs.run_folder import RunFolder
from pipeline.settings import PADDING, DeviceName, TeacherSettings
from pipeline.storage.files import file_sha256
from pipeline.teachers.opening import open_teacher, require_keypoints

Facts = Mapping[str, str | int | float | bool | None]
"""The part of evaluation.json that names what was evaluated, and under which settings."""


@dataclass(frozen=True)
class OpenedNetwork:
    """A network that predicts poses in crops, and what its own file states of its use."""

    path: Path
    estimator: PoseEstimator
    skeleton: Skeleton
    """The keypoints that it predicts."""
    rule: ScoreRule
    padding: float
    """Padding of the boxes in its training; the usual one where its file states none."""
    facts: Facts
    notes: tuple[str, ...] = ()
    """What a user should know of the file, a sentence each."""


def open_student(
    weights: Path, *, flip_test: bool, threshold: float | None, device: DeviceName
) -> OpenedNetwork:
    """Open a student's weights, trained here or published; they state how its poses are scored.

    threshold: keypoint scores above it are averaged; None: all.

    Raises:
        RunFolderError: the file is missing, is no weights file, or holds a teacher.
        ConfigError: the device is not there, or the published network is not known here.
    """
    network, info, notes = load_student(weights)
    estimator = student_estimator(
        network, info, flip_test=flip_test, device=str(choose_device(device))
    )
    facts: Facts = {
        "source": "student",
        "weights": str(weights),
        "architecture": info.architecture,
        **_training_facts(info),
        "flip_test": flip_test,
    }
    rule = replace(info.rule, threshold=threshold)
    return OpenedNetwork(weights, estimator, info.skeleton, rule, info.padding, facts, notes)


def open_exported_student(path: Path, *, flip_test: bool, threshold: float | None) -> OpenedNetwork:
    """Open a student that ``distil export`` wrote; its file states how its poses are scored.

    threshold: keypoint scores above it are averaged; None: all.

    Raises:
        ExportError: it is no such file.
        ConfigError: onnxruntime is not installed.
    """
    student = StudentFile(path, available_cores())
    info = student.description.network
    facts: Facts = {
        "source": "student",
        "weights": str(path),
        "architecture": f"{info.architecture}, {student.description.precision} in onnxruntime",
        "precision": student.description.precision,
        "sha256": file_sha256(path),
        "weights_sha256": student.description.weights_sha256,
        **_training_facts(info),
        "flip_test": flip_test,
    }
    estimator = ExportedEstimator(student, flip_test)
    rule = replace(info.rule, threshold=threshold)
    return OpenedNetwork(path, estimator, info.skeleton, rule, info.padding, facts)


def _training_facts(info: CheckpointInfo) -> Facts:
    progress = {"epoch": info.epoch, "step": info.step} if info.step else {}  # not published
    return {
        **progress,
        "store_fingerprint": info.store_fingerprint,
        "store_content": info.store_content,
        "input_size": _size(info.input_size_hw),
    }


def open_student_at(
    path: Path,
    *,
    flip_test: bool = True,
    threshold: float | None = None,
    device: DeviceName = "auto",
) -> OpenedNetwork:
    """Open a student from whatever holds one: a run folder, weights, an exported student.

    Raises:
        RunFolderError: there is no student.
        ExportError: it is an ONNX file that ``distil export`` did not write.
        ConfigError: the device is not there, or onnxruntime is not installed.
    """
    if path.suffix == ".onnx":
        return open_exported_student(path, flip_test=flip_test, threshold=threshold)
    weights = best_weights(path) if path.is_dir() else path
    return open_student(weights, flip_test=flip_test, threshold=threshold, device=device)


def student_estimator(
    network: Student, info: CheckpointInfo, *, flip_test: bool = True, device: str
) -> StudentEstimator:
    """Return the estimator of a student on a device, set up as its checkpoint states."""
    return StudentEstimator(
        network.to(device),
        info.flip_indices,
        flip_test=flip_test,
        device=device,
        pixels=info.pixels,
    )


def open_heatmap_teacher(
    path: Path, skeleton: Skeleton, settings: TeacherSettings, *, threshold: float | None
) -> OpenedNetwork:
    """Open a teacher under its settings; the mean peak heat of its maps is a pose's score.

    skeleton: the keypoints of a teacher whose file names none, as all but those trained here.

    Raises:
        TeacherError: it cannot be loaded, or predicts another number of heatmaps.
    """
    teacher = open_teacher(path, settings)
    padding = PADDING
    if teacher.network.kind == "torch":
        info = read_info(RunFolder(path).best_weights if path.is_dir() else path)
        skeleton, padding = info.skeleton, info.padding
    require_keypoints(teacher, skeleton.keypoint_names)
    return OpenedNetwork(
        path,
        TeacherEstimator(teacher, skeleton.flip_indices),
        skeleton,
        ScoreRule(threshold=threshold),
        padding,
        {"source": "teacher", "teacher": str(path), **teacher_facts(teacher.identity())},
        teacher.notes,
    )


def teacher_facts(identity: Mapping[str, object]) -> Facts:
    """Return the settings that move the AP of a teacher, from its identity or from a store's."""
    names = (
        *("architecture", "sha256", "flip_test", "flip_shift", "decoding", "heatmap_frame"),
        *("heatmap_activation", "channel_order"),
    )
    facts: dict[str, str | int | float | bool | None] = {}
    for name in names:
        value = identity.get(name)
        if isinstance(value, str | int | float):
            facts["teacher_sha256" if name == "sha256" else name] = value
    if not facts.get("flip_test"):
        facts.pop("flip_shift", None)
    size = identity.get("input_size_hw")
    if isinstance(size, list | tuple):
        facts["input_size"] = _size(size)
    return facts


def best_weights(run_folder: Path) -> Path:
    """Return the best weights of a run.

    Raises:
        RunFolderError: there is no such run, or it has no weights yet.
    """
    weights = RunFolder(run_folder).best_weights
    if not weights.is_file():
        raise RunFolderError(
            f"the run folder {run_folder} has no checkpoints/{weights.name}; expected the folder "
            "of a run of train-student with at least one whole epoch; check --run-folder"
        )
    return weights


def _size(size_hw: tuple[int, ...] | list[int]) -> str:
    return f"{size_hw[0]}x{size_hw[1]}"  # height first, as --input-size takes it
