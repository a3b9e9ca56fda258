"""A student or a teacher made ready for evaluation: what its own file says decides how it is asked.

The keypoints must be those of the annotated people by name, not only by number: a network whose
left and right, or whose order, differ would score a plausible but wrong AP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pipeline.coco.people import People
from pipeline.coco.skeletons import oks_sigmas
from pipeline.errors import ConfigError, RunFolderError
from pipeline.models.pose_networks import Student
from pipeline.prediction.estimators import PoseEstimator, StudentEstimator, TeacherEstimator
from pipeline.prediction.pose_scores import ScoreRule
from pipeline.runs.checkpoints import CheckpointInfo, load_network
from pipeline.runs.run_folder import RunFolder
from pipeline.settings import PADDING, TeacherSettings
from pipeline.teachers.opening import open_fitting_teacher, require_same_names

Facts = Mapping[str, str | int | float | bool | None]
"""What evaluation.json says of what was evaluated."""


@dataclass(frozen=True)
class EvaluatedNetwork:
    """What makes poses of crops, and what its own file says of using it."""

    estimator: PoseEstimator
    rule: ScoreRule
    padding: float
    """Of the boxes in its training; the usual one where its file does not say."""
    sigmas: tuple[float, ...]
    """OKS fall-offs that its file holds; empty: none."""
    facts: Facts


def open_student(
    weights: Path, people: People, *, flip_test: bool, threshold: float | None, device: str
) -> EvaluatedNetwork:
    """Open a student's weights; the checkpoint says how its poses are scored.

    threshold: keypoint scores above it are averaged; None: all.
    device: ``auto`` takes a GPU where there is one.

    Raises:
        RunFolderError: the file is missing, is no weights file, or holds a teacher.
        PeopleError: its keypoints are not those of the people.
    """
    network, info = load_network(weights)
    if not isinstance(network, Student):
        raise RunFolderError(
            f"{weights} holds a {info.kind} ({info.architecture}); expected a student; evaluate it "
            "with --teacher"
        )
    require_same_names(str(weights), info.keypoint_names, people)
    device = _device(device)
    estimator = StudentEstimator(
        network.to(device),
        info.flip_indices,
        flip_test=flip_test,
        device=device,
        pixels=info.pixels,
    )
    facts: Facts = {
        "source": "student",
        "weights": str(weights),
        "architecture": info.architecture,
        "epoch": info.epoch,
        "step": info.step,
        "store_fingerprint": info.store_fingerprint,
        "store_content": info.store_content,
        "input_size": _size(info.input_size_hw),
        "flip_test": flip_test,
    }
    rule = replace(rule_of(info), threshold=threshold)
    return EvaluatedNetwork(estimator, rule, info.padding, info.sigmas, facts)


def open_evaluated_teacher(
    path: Path, people: People, settings: TeacherSettings, *, threshold: float | None
) -> EvaluatedNetwork:
    """Open a teacher under its settings; the mean peak heat of its maps is a pose's score.

    Raises:
        TeacherError: it cannot be loaded, or gives another number of heatmaps.
        PeopleError: its keypoints are not those of the people.
    """
    teacher = open_fitting_teacher(path, people, settings)
    info = _trained_here(path)
    return EvaluatedNetwork(
        TeacherEstimator(teacher, people.skeleton.flip_indices),
        ScoreRule(threshold=threshold),
        PADDING if info is None else info.padding,
        () if info is None else info.sigmas,
        {"source": "teacher", "teacher": str(path), **teacher_facts(teacher.identity())},
    )


def teacher_facts(identity: Mapping[str, object]) -> Facts:
    """Return what moves the AP of a teacher, from its identity or from a store's."""
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


def with_sigmas(people: People, sigmas: tuple[float, ...]) -> People:
    """Return the people with these OKS fall-offs.

    Raises:
        ConfigError: they are not one per keypoint.
    """
    people = replace(people, skeleton=replace(people.skeleton, sigmas=sigmas))
    oks_sigmas(people.skeleton)
    return people


def _trained_here(path: Path) -> CheckpointInfo | None:
    """Return what a teacher's own checkpoint says; None for an ONNX file."""
    if path.suffix == ".onnx":
        return None
    return load_network(RunFolder(path).best_weights if path.is_dir() else path)[1]


def _device(name: str) -> str:
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError("device is cuda, but torch finds no GPU here; set device to auto or cpu")
    return ("cuda" if has_gpu else "cpu") if name == "auto" else name


def _size(size_hw: tuple[int, ...] | list[int]) -> str:
    return f"{size_hw[0]}x{size_hw[1]}"  # height first, as --input-size takes it


def rule_of(info: CheckpointInfo) -> ScoreRule:
    """Return how poses of a network are scored, as its checkpoint says."""
    if info.score_rule == "one" or not info.scored_keypoints:
        return ScoreRule(kind="one")
    return ScoreRule(scored_keypoints=info.scored_keypoints)
