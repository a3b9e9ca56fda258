"""Teacher store (or annotations) -> losses -> checkpoints of a student in a run folder."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from pipeline.coco.skeletons import describe_missing_sigmas
from pipeline.errors import RunFolderError
from pipeline.evaluation.validation import Validation, open_validation
from pipeline.machine import choose_device
from pipeline.models.pose_networks import build_student
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.runs.checkpoints import (
    CheckpointInfo,
    describe_network,
    read_info,
    read_place,
)
from pipeline.runs.initial_weights import set_initial_weights
from pipeline.runs.run_folder import RunFolder
from pipeline.training.augmentation import with_changed_crops
from pipeline.training.corrupt_views import CorruptLedger
from pipeline.training.data import BatchLoader
from pipeline.training.distributed import Processes, open_processes
from pipeline.training.holding import hold_what_fits
from pipeline.training.largest_batch import ViewsToTry, with_batch_size
from pipeline.training.loss_parts import LossContext
from pipeline.training.losses import StudentCriterion
from pipeline.training.metric_sinks import open_sinks
from pipeline.training.preflight import LoadedViews, image_cache_bytes
from pipeline.training.schedule_warnings import warn_of_schedule, warn_of_validation
from pipeline.training.settings import FreshViewSettings
from pipeline.training.sources import FreshViews, read_fresh_views
from pipeline.training.starting import start_training
from pipeline.training.store_sources import open_store_views
from pipeline.training.stored_people import StoredPeople
from pipeline.training.training_setup import Training
from pipeline.training.training_step import choose_precision
from pipeline.wording import Log
from stages.settings.training import TrainStudentConfig

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainStudentResult:
    """Summary of a training."""

    best_weights: Path
    last_weights: Path
    epochs: int
    steps: int
    best_ap: float | None
    """AP of the best weights on the validation people; None without them or their sigmas."""
    best_pck: float | None = None
    """PCK of the best weights, where it decided in place of AP."""
    corrupt_views: str | None = None
    """Summary of the views that were replaced because the store is corrupt; None if none were."""


def train_student(
    config: TrainStudentConfig,
    run_folder: Path,
    *,
    resume: bool = False,
    progress: Progress = NO_PROGRESS,
    command: tuple[str, ...] = (),
    say: Log = lambda _: None,
) -> TrainStudentResult:
    """Train a student, and write its checkpoints, metrics and settings to a run folder.

    command: the command line, for provenance.json.
    say: receives what the user should know, and each corrupt view that is replaced.

    Raises:
        DistilError: settings, images or annotations are at fault, or a loss is not finite.
        StoreError: the store is incomplete, altered or of another schema, or more of it is corrupt
            than ``data.on_corrupt`` lets pass.
    """
    config.require_packages()
    RunFolder(run_folder).check(config, resume=resume)
    device = choose_device(config.device, config.num_threads)
    with open_processes(device) as processes:
        folder = RunFolder(run_folder, is_written=processes.is_first)
        say = say if processes.is_first else (lambda _: None)
        return _train(config, folder, device, processes, resume, progress, command, say)


def _train(
    config: TrainStudentConfig,
    folder: RunFolder,
    device: torch.device,
    processes: Processes,
    resume: bool,
    progress: Progress,
    command: tuple[str, ...],
    say: Log,
) -> TrainStudentResult:
    loss = config.effective_loss

    # People and views. Whatever does not fit is refused here, before the first step.
    views = _open_views(config)
    skeleton = views.people.skeleton
    for note in views.notes():
        say(note)
    torch.manual_seed(config.seed)  # all arms of a comparison start from the same weights
    with_shear = "covariance" in loss.terms
    network = build_student(config.architecture, skeleton.num_keypoints, with_shear)
    continues = resume and folder.training_state.is_file()
    if not continues:
        start = config.initial
        set_initial_weights(
            network, start.weights, start.parts, pretrained=start.pretrained, say=say
        )
    # A projector gives the student's tokens the shape of the stored ones.
    compared_tokens = views.token_shape if loss.token_projector else network.token_shape
    dataset = views.dataset(network.input_size_hw, compared_tokens)
    with_targets = views.with_targets(network.input_size_hw)
    validation = _open_validation(config, views, processes, device, say)
    info = describe_network(
        network,
        skeleton,
        padding=views.padding,
        seed=config.seed,
        score_rule="learned" if loss.confidence > 0 else "one",
        store_fingerprint=views.provenance.fingerprint,
        store_content=views.provenance.content_sha256,
    )
    before = None
    if continues:
        _refuse_another_store(read_info(folder.last_weights), info, folder)
        before = read_place(folder.training_state)

    # What is learned, and what an epoch shows.
    context = LossContext(
        oks_sigmas=skeleton.sigmas,
        student_tokens=network.token_shape,
        teacher_tokens=views.token_shape,
        heatmap_size_hw=views.heatmap_size_hw(network.input_size_hw),
    )
    criterion = StudentCriterion(loss, network.num_keypoints, context)
    precision = choose_precision(config.precision, device, before.precision if before else None)
    cache_bytes = 0
    if not config.learns_from_crops:
        cache_bytes = image_cache_bytes(views.people, views.instances, config.data.image_cache_mib)
    optimisation = with_batch_size(
        config.optimisation,
        network,
        criterion,
        info,
        device,
        precision,
        processes,
        ViewsToTry(dataset, views.instances, config.num_loader_workers, cache_bytes, with_targets),
        say,
    )
    config = config.model_copy(update={"optimisation": optimisation})
    order = views.order(optimisation.crops_in_batch, config.seed)
    processes.check_can_share(order.batch_size, config.data)
    shown = with_changed_crops(dataset, config.data, views.people.instance_id, config.seed)
    loader = BatchLoader(
        shown, order, config.num_loader_workers, device, views.start_method, processes
    )

    held, num_workers = None, config.num_loader_workers
    if config.data_on_device == "auto":
        held = hold_what_fits(views, dataset, shown, order, device, processes, num_workers, say)
    batches_of_epoch = loader.batches_of_epoch if held is None else held

    def warn(message: str) -> None:
        _logger.warning("%s", message)
        say(message)

    ledger = CorruptLedger(*views.ledger_facts, warn)  # fresh views are never in it

    training = Training(
        network=network,
        criterion=criterion,
        normalise=info.pixels.normalise,
        info=info,
        batches_of_epoch=lambda epoch, start: ledger.watch(batches_of_epoch(epoch, start)),
        with_targets=with_targets,
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
        validate=None if validation is None else validation.measure,
        decided_by="AP" if validation is None else validation.decided_by,
        evaluate_every_epochs=config.evaluate_every_epochs,
        ledger=ledger,
    )
    place = start_training(
        training,
        folder,
        config,
        LoadedViews(shown, order, num_workers if held is None else 0, cache_bytes),
        {"command": list(command), **views.provenance.as_facts()},
        partial(open_sinks, tensorboard=config.tensorboard, wandb=config.wandb),
        warnings=(
            *warn_of_schedule(
                config.optimisation, training.num_steps, loss.distillation_warmup_steps
            ),
            *warn_of_validation(
                validation is not None, config.epochs, config.evaluate_every_epochs
            ),
        ),
        epochs_done=before.epoch if before else 0,
        resume=resume,
        progress=progress,
        say=say,
    )
    return TrainStudentResult(
        folder.best_weights,
        folder.last_weights,
        place.epoch,
        place.step,
        place.best_ap,
        place.best_pck,
        ledger.summary(),
    )


def _open_views(config: TrainStudentConfig) -> FreshViews | StoredPeople:
    data = config.data
    if not isinstance(data, FreshViewSettings):
        assert config.store is not None  # its settings are those of a store
        reads = config.effective_loss.reads
        return open_store_views(
            config.store, config.images, data, reads, config.seed, config.device
        )
    assert config.annotations is not None  # the configuration has one of the two
    assert config.images is not None
    return read_fresh_views(config.annotations, config.images, config.people, data, config.seed)


def _open_validation(
    config: TrainStudentConfig,
    views: FreshViews | StoredPeople,
    processes: Processes,
    device: torch.device,
    say: Log,
) -> Validation | None:
    if config.val_annotations is None:
        return None
    images = config.val_images or config.images
    assert images is not None  # checked in the configuration
    validation = open_validation(
        config.val_annotations, images, config.people, views.people, device, say, processes
    )
    if pck_only := describe_missing_sigmas(validation.people.skeleton):
        say(f"{pck_only}; the best weights are those of the highest PCK")
    return validation


def _refuse_another_store(before: CheckpointInfo, now: CheckpointInfo, folder: RunFolder) -> None:
    for name in ("store_fingerprint", "store_content", "keypoint_names", "padding"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            raise RunFolderError(
                f"the run in {folder.root} was trained with {name} = {old}, now it is {new}; "
                "resume with the store it began with, or start another run"
            )
