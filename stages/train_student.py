"""Teacher store (or annotations) -> losses -> checkpoints of a student in a run folder."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from pipeline.checkpoints import CheckpointInfo, load_parts
from pipeline.coco_people import PeopleSettings
from pipeline.config import ComponentConfig, StageConfig
from pipeline.errors import ConfigError
from pipeline.losses import LossConfig
from pipeline.models.pose_networks import RegressionStudent, build_network
from pipeline.objectives import StudentObjective
from pipeline.optimisation import OptimisationConfig
from pipeline.run_folder import RunFolder
from pipeline.training_data import BatchLoader
from pipeline.training_loop import NoProgress, Progress, Training, fit
from pipeline.training_sources import DataConfig, TrainingSource, open_annotations, open_store
from pipeline.validation import open_validation
from pipeline.view_order import ViewOrder

_logger = logging.getLogger(__name__)


class InitialWeights(ComponentConfig):
    """What a student starts from instead of freshly drawn weights."""

    weights: Path | None = None
    """A weights file of ``train-teacher`` or ``train-student``."""
    parts: tuple[str, ...] = ("backbone", "encoder")
    """Submodules whose tensors are copied where name and shape agree."""


class TrainStudentConfig(StageConfig):
    """All settings of ``distil train-student``."""

    resumable_changes: ClassVar[frozenset[str]] = frozenset(
        {
            *("epochs", "evaluate_every_epochs", "num_loader_workers", "data.image_cache_mib"),
            *("store", "annotations", "images", "val_annotations", "val_images"),
            "initial.weights",
        }
    )

    architecture: str = "distilpose-s"
    distillation: bool = True
    """Without it only the regression term remains, and a pose's score is 1 by rule."""
    store: Path | None = None
    """A teacher store; its views are replayed, with or without distillation."""
    annotations: Path | None = None
    """COCO keypoints in place of a store; every epoch draws its own views."""
    images: Path
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
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.store is None) == (self.annotations is None):
            raise ValueError("give either a teacher store or annotations, one of the two")
        if self.distillation and self.store is None:
            raise ValueError("distillation needs a teacher store; give one, or turn it off")
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


def train_student(
    config: TrainStudentConfig,
    run_folder: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    command: tuple[str, ...] = (),
) -> TrainStudentResult:
    """Train a student and leave its checkpoints, metrics and settings in a run folder.

    command: what the user typed, for provenance.json.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    device = _device(config.device)
    folder = RunFolder(run_folder)
    folder.check(config, resume=resume)

    # The student, its weights drawn from the seed alone: all arms of a comparison start equal.
    source_keypoints, size_hw = None, None

    return TrainStudentResult(folder.best_weights, folder.last_weights, 0, 0, None)
