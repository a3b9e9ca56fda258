"""Gaussians around keypoints, or stored heatmaps -> checkpoints of a heatmap network.

Through the same loop as the student, and nothing more: no validation, so the last weights count as
the best; ``distil evaluate`` measures them.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from pipeline.frames.geometry import crop_to_heatmap
from pipeline.machine import choose_device
from pipeline.models.pose_networks import HeatmapTeacher, build_teacher
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.runs.checkpoints import (
    describe_network,
    load_network,
    read_place,
    save_weights,
)
from pipeline.runs.initial_weights import set_initial_weights
from pipeline.runs.run_folder import RunFolder
from pipeline.settings import HeatmapFrame
from pipeline.training.augmentation import with_changed_crops
from pipeline.training.data import BatchLoader, TrainingDataset
from pipeline.training.distributed import Processes, open_processes
from pipeline.training.heatmap_criterion import HeatmapCriterion, StoredHeatmapCriterion
from pipeline.training.largest_batch import ViewsToTry, with_batch_size
from pipeline.training.losses import Criterion
from pipeline.training.metric_sinks import open_sinks
from pipeline.training.preflight import LoadedViews, image_cache_bytes
from pipeline.training.schedule_warnings import warn_of_schedule
from pipeline.training.settings import CarriedViewSettings, TeacherField
from pipeline.training.sources import FreshViews, read_fresh_views
from pipeline.training.starting import start_training
from pipeline.training.store_sources import CarriedViews, open_store_views
from pipeline.training.training_setup import Training
from pipeline.training.training_step import choose_precision
from pipeline.wording import Log
from stages.settings.training import TrainTeacherConfig


@dataclass(frozen=True)
class TrainTeacherResult:
    """Summary of a training."""

    weights: Path
    epochs: int
    steps: int


def train_teacher(
    config: TrainTeacherConfig,
    run_folder: Path,
    *,
    resume: bool = False,
    progress: Progress = NO_PROGRESS,
    command: tuple[str, ...] = (),
    say: Log = lambda _: None,
) -> TrainTeacherResult:
    """Train a heatmap network on Gaussians around annotated keypoints, or on stored heatmaps.

    command: the command line, for provenance.json.
    say: receives what the user should know before the training starts.
    """
    config.require_packages()
    RunFolder(run_folder).check(config, resume=resume)
    device = choose_device(config.device, config.num_threads)
    with open_processes(device) as processes:
        folder = RunFolder(run_folder, is_written=processes.is_first)
        say = say if processes.is_first else (lambda _: None)
        return _train(config, folder, device, processes, resume, progress, command, say)


def _train(
    config: TrainTeacherConfig,
    folder: RunFolder,
    device: torch.device,
    processes: Processes,
    resume: bool,
    progress: Progress,
    command: tuple[str, ...],
    say: Log,
) -> TrainTeacherResult:
    views = _open_views(config)
    skeleton = views.people.skeleton
    for note in views.notes():
        say(note)
    torch.manual_seed(config.seed)
    network = build_teacher(config.architecture, skeleton.num_keypoints)
    before = None
    if resume and folder.training_state.is_file():
        before = read_place(folder.training_state)
    else:
        start = config.initial
        set_initial_weights(
            network, start.weights, start.parts, pretrained=start.pretrained, say=say
        )
    dataset, criterion, frame = _targets(config, views, network)
    info = describe_network(
        network,
        skeleton,
        padding=views.padding,
        seed=config.seed,
        score_rule="learned",
        heatmap_frame=frame,
        store_fingerprint=views.provenance.fingerprint,
        store_content=views.provenance.content_sha256,
    )

    precision = choose_precision(config.precision, device, before.precision if before else None)
    cache_bytes = image_cache_bytes(views.people, views.instances, config.data.image_cache_mib)
    optimisation = with_batch_size(
        config.optimisation,
        network,
        criterion,
        info,
        device,
        precision,
        processes,
        ViewsToTry(dataset, views.instances, config.num_loader_workers, cache_bytes),
        say,
    )
    config = config.model_copy(update={"optimisation": optimisation})
    order = views.order(optimisation.crops_in_batch, config.seed)
    processes.check_can_share(order.batch_size, config.data)
    shown = with_changed_crops(dataset, config.data, views.people.instance_id, config.seed)
    loader = BatchLoader(
        shown, order, config.num_loader_workers, device, views.start_method, processes
    )

    training = Training(
        network=network,
        criterion=criterion,
        normalise=info.pixels.normalise,
        info=info,
        batches_of_epoch=loader.batches_of_epoch,
        steps_per_epoch=len(order),
        batch_size=order.batch_size,
        epochs=config.epochs,
        optimisation=config.optimisation,
        device=device,
        precision=precision,
        is_compiled=config.compiled,
        processes=processes,
        sync_batch_norm=config.sync_batch_norm,
        checkpoint_seconds=config.checkpoint_seconds,
    )
    place = start_training(
        training,
        folder,
        config,
        LoadedViews(shown, order, config.num_loader_workers, cache_bytes),
        {"command": list(command), **views.provenance.as_facts()},
        partial(open_sinks, tensorboard=config.tensorboard, wandb=config.wandb),
        warnings=warn_of_schedule(config.optimisation, training.num_steps),
        epochs_done=before.epoch if before else 0,
        resume=resume,
        progress=progress,
        say=say,
    )
    if config.float16_copy is not None and processes.is_first:
        save_weights(config.float16_copy, *load_network(folder.best_weights), as_float16=True)
    return TrainTeacherResult(folder.best_weights, place.epoch, place.step)


def _open_views(config: TrainTeacherConfig) -> FreshViews | CarriedViews:
    data = config.data
    if isinstance(data, CarriedViewSettings):
        assert config.store is not None  # the settings of a store
        reads = frozenset[TeacherField]({"heatmaps"})
        return open_store_views(config.store, config.images, data, reads, config.seed)
    assert config.annotations is not None  # the configuration has one of the two
    assert config.images is not None
    return read_fresh_views(config.annotations, config.images, config.people, data, config.seed)


def _targets(
    config: TrainTeacherConfig, views: FreshViews | CarriedViews, network: HeatmapTeacher
) -> tuple[TrainingDataset, Criterion, HeatmapFrame]:
    """Return the views with their targets, the loss that compares them, and the heatmaps' frame."""
    size_hw, heatmap_size_hw = network.input_size_hw, network.heatmap_size_hw
    if isinstance(views, CarriedViews):
        dataset = views.dataset(size_hw, heatmap_size_hw=heatmap_size_hw)
        return dataset, StoredHeatmapCriterion(network.num_keypoints), views.store.heatmap_frame
    frame = config.heatmap_frame
    criterion = HeatmapCriterion(
        crop_to_heatmap(frame, size_hw, heatmap_size_hw),
        heatmap_size_hw,
        config.heatmap_sigma,
        network.num_keypoints,
    )
    return views.dataset(size_hw), criterion, frame
