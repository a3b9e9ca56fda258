"""What a GPU makes of stage one and of training, in minutes: python docs/measure_gpu.py

Drawn people, random weights: speed needs no others, and nothing is downloaded. Figures, a line each:
stage one with a torch teacher, and what it waited for; the loader and views that are held; the step
of a distilled student beside the plain one and beside a teacher in the loop, in float32 and
bfloat16; and many steps of DistilPose-S and -L in a row. Without a GPU the figures are those of the
CPU, as the first line says; --small then takes a minute (make it part of no table).
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.caching.estimate import run_trial
from pipeline.caching.inputs import open_inputs
from pipeline.caching.settings import CacheTeacherConfig, TeacherInputs
from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES
from pipeline.drawn.people import write_drawn_people
from pipeline.machine import choose_device
from pipeline.models.pose_networks import HeatmapTeacher, Student, build_student, build_teacher
from pipeline.runs.checkpoints import describe_network, save_weights
from pipeline.settings import Precision, TeacherSettings
from pipeline.training.augmentation import with_changed_crops
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.data import BatchLoader
from pipeline.training.distributed import ALONE
from pipeline.training.holding import hold_what_fits
from pipeline.training.loss_parts import LossContext
from pipeline.training.losses import StudentCriterion
from pipeline.training.settings import (
    CarriedViewSettings,
    LossConfig,
    OptimisationConfig,
    ReplayedViewSettings,
)
from pipeline.training.store_sources import open_store_views
from pipeline.training.training_setup import Training
from pipeline.training.training_step import Learner
from stages.cache_teacher import cache_teacher
from stages.demo import TEACHER as DEMO_TEACHER

FIVE_TERMS = LossConfig(keypoint_token=5e-4, visual_token=5e-4)
PLAIN = FIVE_TERMS.without_teacher()


def say(line: str) -> None:
    print(line, flush=True)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the mean time of a call, after one that is not counted."""
    run()
    wait_for(device)
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    wait_for(device)
    return (time.perf_counter() - began) / repeats


def stage_one(options: argparse.Namespace, folder: Path, device: torch.device) -> None:
    """Print the rate of stage one with a torch teacher, and what the teacher waited for."""
    torch.manual_seed(0)
    network = build_teacher(options.teacher, len(COCO_KEYPOINT_NAMES))
    people, images = folder / "annotations.json", folder / "images"
    config = TeacherInputs(
        annotations=people, images=images, teacher=DEMO_TEACHER, views=options.views
    )
    found, _ = open_inputs(config)
    weights = folder / "teacher.safetensors"
    info = describe_network(
        network, found.skeleton, padding=1.25, seed=0, score_rule="learned", heatmap_frame="msra"
    )
    save_weights(weights, network, info)
    for precision in ("float32", "bfloat16"):
        settings = TeacherSettings(
            device=str(device), precision=precision, flip_test=True, batch_size=options.batch_size
        )
        config = config.model_copy(update={"teacher": weights, "teacher_settings": settings})
        found, teacher = open_inputs(config)
        trial = run_trial(config, found, teacher, threshold=0.01, num_people=options.people)
        say(
            f"stage one, {options.teacher}, flips averaged, {precision}: "
            f"{trial.num_views / trial.seconds:.1f} views/s; {trial.breakdown.describe()}"
        )


def timed(batches: Iterable[TrainingBatch], device: torch.device) -> float:
    """Return how many views a second arrive on the device, the first batch left out."""
    iterator = iter(batches)
    next(iterator).to(device)
    wait_for(device)
    began, count = time.perf_counter(), 0
    for batch in iterator:
        count += len(batch.to(device).images)
    wait_for(device)
    return count / (time.perf_counter() - began)


def loader(options: argparse.Namespace, folder: Path, device: torch.device) -> None:
    """Print views/s of the loader, and with views that are held, from stored crops."""
    people, images = folder / "annotations.json", folder / "images"
    reads = LossConfig().reads
    for name, views, data in (
        ("carried", 0, CarriedViewSettings(from_crops=True)),
        ("replayed", options.views, ReplayedViewSettings(from_crops=True)),
    ):
        store = folder / f"{name}.zarr"
        cache_teacher(
            CacheTeacherConfig(
                annotations=people, images=images, teacher=DEMO_TEACHER, views=views, crops=True,
                store=str(store), accept_weak_teacher=True,
            )
        )  # fmt: skip
        opened = open_store_views(store, None, data, reads)
        size_hw = (128, 96) if name == "replayed" else (256, 192)
        batch_size = min(options.batch_size, len(opened.instances) // 4)
        order, dataset = opened.order(batch_size, 0), opened.dataset(size_hw)
        shown = with_changed_crops(dataset, data, opened.people.instance_id, 0)
        workers = options.workers
        loaded = BatchLoader(shown, order, workers, device)
        plain = timed(_epochs(loaded.batches_of_epoch, options.epochs), device)
        held = hold_what_fits(opened, dataset, shown, order, device, ALONE, workers, say)
        batches = held or BatchLoader(shown, order, workers, device).batches_of_epoch
        fast = timed(_epochs(batches, options.epochs), device)
        say(
            f"loader, {name} views of {size_hw[0]} x {size_hw[1]} from stored crops, {workers} "
            f"workers: {plain:.0f} views/s; held in memory: {fast:.0f} views/s"
        )


def _epochs(
    batches: Callable[[int, int], Iterator[TrainingBatch]], count: int
) -> Iterator[TrainingBatch]:
    for epoch in range(count):
        yield from batches(epoch, 0)


def random_batch(student: Student, size: int, device: torch.device) -> TrainingBatch:
    """Return a batch with everything that the five terms read."""
    (height, width), keypoints = student.input_size_hw, student.num_keypoints
    tokens = student.token_shape
    assert tokens is not None
    rows, columns = tokens.grid_hw

    def uniform(largest: float, *shape: int) -> Tensor:
        return largest * torch.rand(size, *shape, device=device)

    ones = torch.ones(size, keypoints, device=device)
    affine = torch.tensor([[0.25, 0.0, 0.0], [0.0, 0.25, 0.0]], device=device)
    return TrainingBatch(
        images=uniform(255, height, width, 3).to(torch.uint8),
        keypoints=uniform(width, keypoints, 2),
        keypoint_weights=ones,
        is_labelled=ones > 0,
        areas=uniform(1e4),
        teacher=TeacherBatch(
            crop_to_heatmap=affine.repeat(size, 1, 1),
            heatmaps=uniform(255, keypoints, height // 4, width // 4).to(torch.uint8),
            scale=ones / 255,
            keypoint_tokens=uniform(1, keypoints, tokens.dim),
            visual_tokens=uniform(1, rows * columns, tokens.dim),
        ),
    )


def learner_of(
    name: str, loss: LossConfig, size: int, precision: Precision, device: torch.device
) -> tuple[Learner, TrainingBatch]:
    """Return a training of a student from random weights, and a batch."""
    torch.manual_seed(0)
    student = build_student(name, len(COCO_KEYPOINT_NAMES))
    height, width = student.input_size_hw
    context = LossContext(
        student_tokens=student.token_shape,
        teacher_tokens=student.token_shape,
        heatmap_size_hw=(height // 4, width // 4),
    )
    training = Training(
        network=student,
        criterion=StudentCriterion(loss, student.num_keypoints, context),
        normalise=_normalise,
        info=_info(student),
        batches_of_epoch=lambda _, __: (),
        steps_per_epoch=1 << 20,
        batch_size=size,
        epochs=1,
        optimisation=OptimisationConfig(batch_size=size),
        device=device,
        precision=precision,
    )
    learner = Learner(training)
    learner.train()
    return learner, random_batch(student, size, device)
