"""Teacher store (or annotations) -> losses -> checkpoints of a student in a run folder."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.coco.people import Skeleton
from pipeline.coco.read_people import PeopleSettings
from pipeline.config import StageConfig
from pipeline.devices import DeviceName, choose_device
from pipeline.errors import ConfigError, RunFolderError
from pipeline.evaluation.validation import Validation, open_validation
from pipeline.frames.geometry import Affine, SizeHW
from pipeline.frames.views import describe_missing_halves
from pipeline.models.pose_networks import RegressionStudent, build_network
from pipeline.runs.checkpoints import CheckpointInfo, describe_network, read_info
from pipeline.runs.initial_weights import InitialWeights
from pipeline.runs.run_folder import RunFolder
from pipeline.storage.folder import StoreLocation
from pipeline.training.corrupt_ledger import CorruptLedger
from pipeline.training.data import BatchLoader
from pipeline.training.loop import NoProgress, Progress, Training, fit
from pipeline.training.losses import LossConfig
from pipeline.training.objectives import StudentObjective
from pipeline.training.optimisation import OptimisationConfig
from pipeline.training.sources import (
    DataConfig,
    FreshViews,
    ReplayedViews,
    open_replayed_views,
    read_fresh_views,
    refuse_settings_of_a_store,
)

_logger = logging.getLogger(__name__)


class TrainStudentConfig(StageConfig):
    """All settings of ``distil train-student``."""

    resumable_changes: ClassVar[frozenset[str]] = frozenset(
        {
            *("epochs", "evaluate_every_epochs", "num_loader_workers", "data.image_cache_mib"),
            *("data.on_corrupt", "data.paranoid", "data.store_cache"),
            *("store", "annotations", "images", "val_annotations", "val_images"),
            "initial.weights",
        }
    )

    architecture: str = "distilpose-s"
    distillation: bool = True
    """Without it only the regression term remains, and a pose's score is 1 by rule."""
    store: StoreLocation | None = None
    """A teacher store; its views are replayed, with or without distillation."""
    annotations: Path | None = None
    """COCO keypoints in place of a store; every epoch draws its own views."""
    images: Path | None = None
    """Needed unless ``data.from_crops``."""
    val_annotations: Path | None = None
    val_images: Path | None = None
    """None: the folder ``images``."""
    people: PeopleSettings = PeopleSettings()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    initial: InitialWeights = InitialWeights()
    seed: int = Field(0, ge=0)
    epochs: int = Field(300, ge=1)
    evaluate_every_epochs: int = Field(10, ge=1)
    num_loader_workers: int = Field(2, ge=0)
    num_threads: int | None = Field(None, ge=1)
    """Threads of the training itself; None: torch's choice."""
    device: DeviceName = "auto"

    @field_validator("data")
    @classmethod
    def _choose_order(cls, data: DataConfig, info: ValidationInfo) -> DataConfig:
        # Part of the settings, so that a run goes on in the order that it began with.
        return data.with_order(info.data.get("store"))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.store is None) == (self.annotations is None):
            raise ValueError("give either a teacher store or annotations, one of the two")
        if self.distillation and self.store is None:
            raise ValueError("distillation needs a teacher store; give one, or turn it off")
        if self.store is None:
            refuse_settings_of_a_store(self.data)
        if self.images is None and not self.data.from_crops:
            raise ValueError("images must be given, unless data.from_crops is true")
        if self.val_annotations and self.val_images is None and self.images is None:
            raise ValueError("val_annotations need their images; give val_images")
        if self.distillation and not self.loss.needs_teacher:
            raise ValueError(
                "loss.simulated_heatmap and loss.confidence are both 0, so nothing is distilled; "
                "set one, or turn distillation off"
            )
        if not self.distillation and self.loss.regression == 0:
            raise ValueError("loss.regression is 0 and distillation is off: nothing is left")
        return self

    @property
    def effective_loss(self) -> LossConfig:
        """The loss, without its distilled terms where distillation is off."""
        if self.distillation:
            return self.loss
        return self.loss.model_copy(update={"simulated_heatmap": 0.0, "confidence": 0.0})


@dataclass(frozen=True)
class TrainStudentResult:
    """What a training leaves."""

    best_weights: Path
    last_weights: Path
    epochs: int
    steps: int
    best_ap: float | None
    """On the validation people; None without them."""
    corrupt_views: str | None = None
    """What was replaced because the store is corrupt; None: nothing."""


def train_student(
    config: TrainStudentConfig,
    run_folder: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    command: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda _: None,
) -> TrainStudentResult:
    """Train a student and leave its checkpoints, metrics and settings in a run folder.

    command: what the user typed, for provenance.json.
    say: told what the user should know, and of each corrupt view that is replaced.

    Raises:
        DistilError: settings, images or annotations are at fault, or a loss is not finite.
        StoreError: the store is incomplete, altered or of another schema, or more of it is corrupt
            than ``data.on_corrupt`` lets pass.
    """
    folder = RunFolder(run_folder)
    folder.check(config, resume=resume)
    device = choose_device(config.device, config.num_threads)

    # People and views. Whatever does not fit is refused here, before the first step.
    views = _open_views(config)
    skeleton = views.people.skeleton
    if config.store is None and (note := describe_missing_halves(skeleton, config.data.recipe)):
        say(note)
    torch.manual_seed(config.seed)  # all arms of a comparison start from the same weights
    network = build_network(config.architecture, skeleton.num_keypoints)
    if not isinstance(network, RegressionStudent):
        raise ConfigError(
            f"architecture must be a student's, got {config.architecture}, which is a teacher; "
            "choose distilpose-s or distilpose-xs"
        )
    goes_on = resume and folder.training_state.is_file()
    if not goes_on:
        config.initial.copy_into(network)
    dataset = views.dataset(network.input_size_hw)
    validation = _open_validation(config, skeleton, device)
    info = _describe(config, network, views)
    if goes_on:
        _refuse_another_store(read_info(folder.last_weights), info, folder)

    # What an epoch shows, and what is learned from it.
    order = views.order(config.optimisation.batch_size, config.seed)
    loader = BatchLoader(dataset, order, config.num_loader_workers, device, views.start_method)
    ledger = _open_ledger(views, say)
    objective = StudentObjective(
        config.effective_loss,
        network.num_keypoints,
        network.input_size_hw,
        _crop_to_heatmap(views, network.input_size_hw),
        device,
    )

    facts = {
        "command": list(command),
        "store_fingerprint": info.store_fingerprint,
        "store_content": info.store_content,
    }
    folder.begin(config, facts, resume=resume)
    with folder.logging():
        place = fit(
            Training(
                network=network,
                info=info,
                objective=objective,
                batches_of_epoch=lambda epoch: ledger.watch(loader.batches_of_epoch(epoch)),
                steps_per_epoch=len(order),
                batch_size=order.batch_size,
                epochs=config.epochs,
                optimisation=config.optimisation,
                device=device,
                validate=None if validation is None else validation.measure,
                evaluate_every_epochs=config.evaluate_every_epochs,
                ledger=ledger,
            ),
            folder,
            progress or NoProgress(),
            resume=resume,
        )
        if summary := ledger.summary():
            _logger.warning("%s", summary)
    return TrainStudentResult(
        folder.best_weights,
        folder.last_weights,
        place.epoch,
        place.step,
        place.best_ap,
        ledger.summary(),
    )


def _open_views(config: TrainStudentConfig) -> FreshViews | ReplayedViews:
    if config.store is not None:
        return open_replayed_views(
            config.store, config.images, config.data, reads_heatmaps=config.distillation
        )
    assert config.annotations is not None  # the configuration has one of the two
    assert config.images is not None
    return read_fresh_views(
        config.annotations, config.images, config.people, config.data, config.seed
    )


def _open_validation(
    config: TrainStudentConfig, trained: Skeleton, device: torch.device
) -> Validation | None:
    if config.val_annotations is None:
        return None
    images = config.val_images or config.images
    assert images is not None  # checked in the configuration
    return open_validation(config.val_annotations, images, config.people, trained, device)


def _open_ledger(views: FreshViews | ReplayedViews, say: Callable[[str], None]) -> CorruptLedger:
    """Return the account of corrupt views; fresh views are never in it."""

    def warn(message: str) -> None:
        _logger.warning("%s", message)
        say(message)

    if isinstance(views, ReplayedViews):
        num_person_views = len(views.instances) * views.num_views
        return CorruptLedger(str(views.store.path), num_person_views, warn)
    return CorruptLedger(str(views.image_folder), 0, warn)


def _describe(
    config: TrainStudentConfig, network: RegressionStudent, views: FreshViews | ReplayedViews
) -> CheckpointInfo:
    store = views.store if isinstance(views, ReplayedViews) else None
    return describe_network(
        network,
        views.people.skeleton,
        padding=views.padding,
        seed=config.seed,
        score_rule="learned" if config.effective_loss.confidence > 0 else "one",
        store_fingerprint=store.fingerprint if store else None,
        store_content=store.content_sha256 if store else None,
    )


def _crop_to_heatmap(views: FreshViews | ReplayedViews, input_size_hw: SizeHW) -> Affine:
    """Return (2, 3); without a store no term uses it."""
    if isinstance(views, ReplayedViews):
        return views.crop_to_heatmap(input_size_hw)
    return np.eye(2, 3)


def _refuse_another_store(before: CheckpointInfo, now: CheckpointInfo, folder: RunFolder) -> None:
    for name in ("store_fingerprint", "store_content", "keypoint_names", "padding"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            raise RunFolderError(
                f"the run in {folder.root} was trained with {name} = {old}, now it is {new}; "
                "resume with the store it began with, or start another run"
            )
