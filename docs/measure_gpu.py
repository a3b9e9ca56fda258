"""What a GPU makes of stage one and of training, in minutes: python docs/measure_gpu.py

Drawn people and random weights, as speed needs no others. Figures, a line each: stage one with a
torch teacher, and what it waited for; the loader and views that are held; the step of a distilled
student beside the plain one and beside a teacher in the loop, in float32 and bfloat16; and many
steps of DistilPose-S and -L in a row. Without a GPU the figures are those of the CPU, as the first
line says; --small takes sizes that a CPU can do in a minute.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.caching.estimate import run_trial
from pipeline.caching.inputs import open_inputs
from pipeline.caching.settings import CacheTeacherConfig, TeacherInputs
from pipeline.coco.people import Skeleton
from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES, skeleton_of_category
from pipeline.drawn.people import write_drawn_people
from pipeline.frames.pixels import PixelNormalisation
from pipeline.machine import choose_device
from pipeline.models.pose_networks import Student, build_student, build_teacher
from pipeline.runs.checkpoints import describe_network, save_weights
from pipeline.settings import Precision, SkeletonSettings, TeacherSettings
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
from pipeline.training.training_step import Learner, choose_precision
from stages.cache_teacher import cache_teacher
from stages.demo import TEACHER as DEMO_TEACHER

FIVE_TERMS = LossConfig(keypoint_token=5e-4, visual_token=5e-4)
PLAIN = FIVE_TERMS.without_teacher()


def say(line: str) -> None:
    print(line, flush=True)


def coco_skeleton() -> Skeleton:
    record = {"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINT_NAMES), "skeleton": []}
    return skeleton_of_category(record, SkeletonSettings())


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
    skeleton, weights = coco_skeleton(), folder / "teacher.safetensors"
    network = build_teacher(options.teacher, skeleton.num_keypoints)
    info = describe_network(
        network, skeleton, padding=1.25, seed=0, score_rule="learned", heatmap_frame="msra"
    )
    save_weights(weights, network, info)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        settings = TeacherSettings(
            device=str(device), precision=precision, flip_test=True, batch_size=options.batch_size
        )
        config = TeacherInputs(
            annotations=folder / "annotations.json",
            images=folder / "images",
            teacher=weights,
            views=options.views,
            teacher_settings=settings,
        )
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
            keypoints=uniform(width, keypoints, 2),
            keypoint_weights=ones,
            confidences=ones,
            keypoint_tokens=uniform(1, keypoints, tokens.dim),
            visual_tokens=uniform(1, rows * columns, tokens.dim),
        ),
    )


def learner_of(
    name: str, loss: LossConfig, size: int, precision: Precision, device: torch.device
) -> tuple[Learner, TrainingBatch]:
    """Return a training of a student from random weights, and a batch."""
    torch.manual_seed(0)
    skeleton = coco_skeleton()
    student = build_student(name, skeleton.num_keypoints)
    height, width = student.input_size_hw
    context = LossContext(
        student_tokens=student.token_shape,
        teacher_tokens=student.token_shape,
        heatmap_size_hw=(height // 4, width // 4),
    )
    training = Training(
        network=student,
        criterion=StudentCriterion(loss, student.num_keypoints, context),
        normalise=PixelNormalisation().normalise,
        info=describe_network(student, skeleton, padding=1.25, seed=0, score_rule="learned"),
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


def steps(options: argparse.Namespace, device: torch.device) -> None:
    """Print the step of a distilled student beside the plain one, and beside a live teacher."""
    name, size, repeats = options.students[0], options.batch_size, options.repeats
    teacher = build_teacher(options.teacher, len(COCO_KEYPOINT_NAMES)).to(device).eval()
    teacher = teacher.to(memory_format=torch.channels_last)
    crops = torch.rand(size, 3, *teacher.input_size_hw, device=device)
    crops = crops.contiguous(memory_format=torch.channels_last)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        times = {}
        for kind, loss in (("plain", PLAIN), ("distilled", FIVE_TERMS)):
            learner, batch = learner_of(name, loss, size, precision, device)
            times[kind] = seconds_of(partial(learner.step, batch, 0), device, repeats)
        is_mixed = precision != "float32"
        dtype = getattr(torch, precision) if is_mixed else None

        def predict(dtype: torch.dtype | None = dtype, is_mixed: bool = is_mixed) -> None:
            with torch.inference_mode(), torch.autocast(device.type, dtype, is_mixed):
                teacher(crops)

        forward = seconds_of(predict, device, repeats)
        distilled = times["distilled"]
        say(
            f"step of {name}, {precision}, batch {size}: plain {1e3 * times['plain']:.1f} ms, five "
            f"terms {1e3 * distilled:.1f} ms ({distilled / times['plain']:.2f} of plain), with "
            f"{options.teacher} in the loop {1e3 * (distilled + forward):.1f} ms "
            f"({(distilled + forward) / distilled:.2f} of five terms)"
        )


def many_steps(options: argparse.Namespace, device: torch.device) -> None:
    """Print rate, memory and loss of many steps in a row, in the precision that is the default."""
    precision = choose_precision(None, device, None)
    for name in options.students:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        learner, batch = learner_of(name, FIVE_TERMS, options.batch_size, precision, device)
        first = float(learner.step(batch, 0)[0].total)
        wait_for(device)
        began = time.perf_counter()
        for step in range(1, options.steps):
            loss = learner.step(batch, step)[0].total
        wait_for(device)
        rate = options.batch_size * (options.steps - 1) / (time.perf_counter() - began)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        say(
            f"{options.steps} steps of {name}, {precision}, batch {options.batch_size}: "
            f"{rate:.1f} crops/s, loss {first:.4f} -> {float(loss):.4f}"
            + (f", {peak / 1e9:.2f} GB at most" if peak else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU, to try the script")
    given = parser.parse_args()
    sizes: dict[str, object] = {"teacher": "tokenpose-hrnet48", "people": 256, "views": 3}
    sizes |= {"students": ("distilpose-s", "distilpose-l"), "batch_size": 64, "workers": 8}
    sizes |= {"epochs": 6, "repeats": 30, "steps": 1000}
    if given.small:
        sizes |= {"teacher": "tokenpose-xs", "students": ("distilpose-xxs",), "people": 8}
        sizes |= {"views": 1, "batch_size": 4, "workers": 1, "epochs": 3, "repeats": 2, "steps": 4}
    options = argparse.Namespace(**sizes)
    device = choose_device(given.device)
    if device.type == "cuda":
        say(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    else:
        say(f"no GPU: the figures are those of this CPU ({torch.get_num_threads()} threads)")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_drawn_people(folder, options.people, seed=1)
        stage_one(options, folder, device)
        loader(options, folder, device)
    steps(options, device)
    many_steps(options, device)


if __name__ == "__main__":
    main()
