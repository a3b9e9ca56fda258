"""Training steps to measure: networks with random weights, and batches of drawn numbers.

What a step takes does not depend on what its network has learned, so that no teacher, store or
photograph is needed.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline.benchmarks.figures import processor_seconds
from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES, skeleton_of_category
from pipeline.frames.geometry import apply, crop_to_heatmap
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.models.pose_networks import HeatmapTeacher, Student, build_student, build_teacher
from pipeline.models.token_encoder import TokenShape
from pipeline.runs.checkpoints import CheckpointInfo, describe_network, save_weights
from pipeline.settings import (
    PADDING,
    HeatmapFrame,
    Precision,
    SkeletonSettings,
    TeacherSettings,
)
from pipeline.teachers import Teacher
from pipeline.teachers.opening import open_teacher
from pipeline.training.batch import TeacherBatch, TrainingBatch, unchanged
from pipeline.training.distributed import ALONE, Processes
from pipeline.training.live_teacher import LiveTargets
from pipeline.training.loss_parts import LossContext
from pipeline.training.losses import StudentCriterion
from pipeline.training.settings import LossConfig, OptimisationConfig
from pipeline.training.training_setup import Training
from pipeline.training.training_step import Learner
from store_schemas.formats import DEFAULT_PROFILE, PROFILES
from store_schemas.heatmap_codec import quantise_heatmaps

NUM_KEYPOINTS = len(COCO_KEYPOINT_NAMES)
SKELETON = skeleton_of_category(
    {"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINT_NAMES)}, SkeletonSettings()
)
FRAME: HeatmapFrame = "half-pixel"
FIVE_TERMS = LossConfig(keypoint_token=5e-4, visual_token=5e-4)
"""The loss of DistilPose: regression, simulated heatmap, confidence, and both kinds of tokens."""
_THRESHOLD = 0.02  # of stored heat, that of a teacher whose peaks are near 1
_SIGMA = 2.0


def seconds_on(device: torch.device) -> Callable[[Callable[[int], object], int], float]:
    """Return what measures the seconds of a call: of the processor, or of a GPU by the clock."""
    return processor_seconds if device.type == "cpu" else partial(clock_seconds, device=device)


def clock_seconds(work: Callable[[int], object], batch: int, device: torch.device) -> float:
    """Return the seconds by the clock that work on a batch takes, the device's share included."""
    _wait_for(device)
    began = time.perf_counter()
    work(batch)
    _wait_for(device)
    return time.perf_counter() - began


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def student_and_info(architecture: str) -> tuple[Student, CheckpointInfo]:
    """Return a student of the named architecture with random weights, and its description."""
    torch.manual_seed(0)
    network = build_student(architecture, NUM_KEYPOINTS)
    return network, describe_network(
        network, SKELETON, padding=PADDING, seed=0, score_rule="learned"
    )


def save_random_teacher(architecture: str, file: Path) -> HeatmapTeacher:
    """Write the weights file of a teacher with random weights, and return its network."""
    torch.manual_seed(0)
    network = build_teacher(architecture, NUM_KEYPOINTS)
    info = describe_network(
        network, SKELETON, padding=PADDING, seed=0, score_rule="one", heatmap_frame=FRAME
    )
    save_weights(file, network, info)
    return network


def open_random_teacher(file: Path, batch_size: int, device: torch.device) -> Teacher:
    """Open the teacher of a weights file, as a training with the teacher in the loop does."""
    settings = TeacherSettings(
        batch_size=batch_size, num_threads=torch.get_num_threads(), device=str(device)
    )
    return open_teacher(file, settings)


def drawn_batch(
    student: Student, size: int, token_shape: TokenShape | None, heatmap_size_hw: tuple[int, int]
) -> TrainingBatch:
    """Draw a batch of crops with labels and with a teacher's targets as a store gives them.

    token_shape: that of the teacher's tokens; None: there are none.
    """
    random = np.random.default_rng(0)
    height, width = student.input_size_hw
    images = random.integers(0, 256, (size, height, width, 3), np.uint8)
    keypoints = random.uniform(0, [width - 1, height - 1], (size, NUM_KEYPOINTS, 2))
    to_heatmap = crop_to_heatmap(FRAME, student.input_size_hw, heatmap_size_hw)
    heat = encode_keypoints(apply(to_heatmap, keypoints), heatmap_size_hw, _SIGMA)
    stored, scale = quantise_heatmaps(heat, _THRESHOLD, PROFILES[DEFAULT_PROFILE])
    ones = torch.ones(size, NUM_KEYPOINTS)
    points = torch.from_numpy(keypoints.astype(np.float32))
    tokens = {}
    if token_shape is not None:
        num_visual = token_shape.grid_hw[0] * token_shape.grid_hw[1]
        for name, count in (("keypoint_tokens", NUM_KEYPOINTS), ("visual_tokens", num_visual)):
            values = random.standard_normal((size, count, token_shape.dim), np.float32)
            tokens[name] = torch.from_numpy(values)
    teacher = TeacherBatch(
        crop_to_heatmap=torch.from_numpy(np.tile(to_heatmap.astype(np.float32), (size, 1, 1))),
        heatmaps=torch.from_numpy(stored),
        scale=torch.from_numpy(scale),
        keypoints=points,
        keypoint_weights=ones,
        confidences=ones,
        **tokens,
    )
    return TrainingBatch(
        images=torch.from_numpy(images),
        keypoints=points,
        keypoint_weights=ones,
        is_labelled=ones > 0,
        areas=torch.full((size,), height * width / 4.0),
        teacher=teacher,
    )


def with_teacher_crops(batch: TrainingBatch, teacher: Teacher) -> TrainingBatch:
    """Return a batch without targets, with crops for the teacher in their place."""
    random = np.random.default_rng(1)
    shape = (len(batch.images), *teacher.input_size_hw, 3)
    crops = torch.from_numpy(random.integers(0, 256, shape, np.uint8))
    return replace(batch, teacher=None, teacher_crops=crops)


def learner_of(
    architecture: str,
    loss: LossConfig,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    teacher_tokens: TokenShape | None,
    *,
    teacher: Teacher | None = None,
    processes: Processes = ALONE,
) -> Learner:
    """Return what makes the steps of a student's training, as ``train-student`` builds it.

    teacher_tokens: shape of the tokens that the batches hold.
    teacher: predicts the targets in every step; None: the batches hold them.
    """
    network, info = student_and_info(architecture)
    context = LossContext(student_tokens=network.token_shape, teacher_tokens=teacher_tokens)
    targets = unchanged
    if teacher is not None:
        flips = SKELETON.flip_indices
        targets = LiveTargets(teacher, flips, network.input_size_hw, loss.reads)
    learner = Learner(
        Training(
            network=network,
            criterion=StudentCriterion(loss, NUM_KEYPOINTS, context),
            normalise=info.pixels.normalise,
            info=info,
            batches_of_epoch=lambda epoch, start: (),
            with_targets=targets,
            steps_per_epoch=1_000_000,
            batch_size=batch_size,
            epochs=1,
            optimisation=OptimisationConfig(batch_size=batch_size),
            device=device,
            precision=precision,
            processes=processes,
        )
    )
    learner.train()
    return learner


def terms_for(student: TokenShape | None, teacher: TokenShape | None) -> LossConfig:
    """Return all five terms, or the three that read no tokens where the shapes differ."""
    fits = student is not None and student == teacher
    tokens = {} if fits else {"keypoint_token": 0.0, "visual_token": 0.0}
    return FIVE_TERMS.model_copy(update=tokens)
