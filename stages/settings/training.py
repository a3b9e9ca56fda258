"""Settings of ``distil train-student`` and ``train-teacher``."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.config import InputFile, InputFolder, OutputFile, StageConfig
from pipeline.errors import ConfigError
from pipeline.settings import (
    DeviceName,
    HeatmapFrame,
    InputStore,
    NumLoaderWorkers,
    NumThreads,
    PeopleSettings,
    Precision,
)
from pipeline.training.settings import (
    CarriedViewSettings,
    FreshViewSettings,
    InitialTeacherWeights,
    InitialWeights,
    LossConfig,
    OptimisationConfig,
    StoreViewSettings,
    TeacherViewSettings,
    ViewSettings,
    name_the_policy,
)

_HOW = frozenset(
    {
        *("epochs", "num_loader_workers", "data.image_cache_mib", "initial.weights"),
        *("data.teacher",),
        *("device", "checkpoint_minutes", "tensorboard", "wandb"),
    }
)
"""Settings that may differ when a training is resumed: what they change is no loss or target."""


class TrainingConfig(StageConfig):
    """Settings of every training, of students and of teachers."""

    optimisation: OptimisationConfig = OptimisationConfig()
    seed: int = Field(0, ge=0)
    """Seed of the order, the initialisation and all random views."""
    epochs: int = Field(300, ge=1)
    """Number of epochs."""
    num_loader_workers: NumLoaderWorkers = 2
    """Number of processes that load images; of each process of a training, where torchrun starts
    several."""
    num_threads: NumThreads | None = None
    """Number of CPU threads of the training itself; by default torch's choice."""
    device: DeviceName = "auto"
    """Device of the training: auto, cpu, cuda, mps or cuda:N; auto takes a CUDA GPU where there is
    one."""
    precision: Precision | None = None
    """Number format of the network's products; weights, losses and optimiser stay float32. By
    default bfloat16 on a GPU that computes in it, and float32 elsewhere."""
    compiled: bool = False
    """Compile the network with torch.compile before the first step, which takes a minute."""
    sync_batch_norm: bool = True
    """Normalise over the batches of all processes, where torchrun starts several."""
    checkpoint_minutes: float = Field(15.0, gt=0)
    """Time after which the state of a training is saved within an epoch."""

    tensorboard: bool = False
    """Write the figures to the folder tensorboard of the run folder too; needs the extra
    tensorboard."""
    wandb: str | None = None
    """Project of Weights & Biases that the figures are sent to; needs the extra wandb and its
    login."""

    def require_packages(self) -> None:
        """Refuse settings whose extra package is not installed.

        Raises:
            ConfigError: it is not; names the extra.
        """
        for package, is_needed in (("tensorboard", self.tensorboard), ("wandb", self.wandb)):
            if is_needed and find_spec(package) is None:
                raise ConfigError(
                    f"--{package} needs the package {package}, which is not installed; install "
                    f"the extra (uv sync --extra {package}), or leave --{package} out"
                )

    @property
    def checkpoint_seconds(self) -> float:
        """Time after which the state of a training is saved within an epoch."""
        return 60 * self.checkpoint_minutes


class TrainStudentConfig(TrainingConfig):
    """All settings of ``distil train-student``."""

    resumable_changes: ClassVar[frozenset[str]] = _HOW | {
        *(
            "evaluate_every_epochs",
            "data_on_device",
            "data.on_corrupt",
            "data.paranoid",
            "data.store_cache",
        ),
        *("store", "annotations", "images", "val_annotations", "val_images"),
    }

    architecture: str = "distilpose-s"
    """Architecture: distilpose-s, distilpose-l (HRNet-W48), distilpose-lite, distilpose-xs, or
    timm:NAME, a token encoder on the feature map of stride 16 of any network of timm."""
    distillation: bool = True
    """Learn from the teacher; without it only what learns from labels remains, and the score of
    every pose is 1 by rule unless ``loss.score_target`` is oks."""
    store: InputStore | None = None
    """Teacher store to learn from; without distillation only its people and crops are used."""
    annotations: InputFile | None = None
    """COCO keypoint JSON in place of a store, with --no-distillation; every epoch draws new
    views."""
    images: InputFolder | None = None
    """Folder of the images of the store, or of the annotations."""
    val_annotations: InputFile | None = None
    """COCO keypoint JSON of the people that AP is measured on during the training."""
    val_images: InputFolder | None = None
    """Folder of the images of --val-annotations; by default --images."""
    people: PeopleSettings = PeopleSettings()
    data: ViewSettings = Field(default_factory=FreshViewSettings)
    loss: LossConfig = LossConfig()
    initial: InitialWeights = InitialWeights()
    evaluate_every_epochs: int = Field(10, ge=1)
    """Number of epochs between validations."""
    data_on_device: Literal["off", "auto"] = "off"
    """Hold small stores in memory from the start: replayed views on the device, and of carried ones
    the stored crops and predictions in RAM; auto does so where half of the free memory is
    enough."""

    @model_validator(mode="before")
    @classmethod
    def _name_the_policy(cls, settings: Any) -> Any:
        return name_the_policy(settings)

    @field_validator("data")
    @classmethod
    def _choose_order(cls, data: ViewSettings, info: ValidationInfo) -> ViewSettings:
        # Part of the settings, so that a run continues in the order that it began with.
        store = info.data.get("store")
        if isinstance(data, FreshViewSettings) or store is None:
            return data
        return data.with_order(store)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.store is None) == (self.annotations is None):
            raise ValueError("give either a teacher store (--store) or --annotations")
        is_fresh = isinstance(self.data, FreshViewSettings)
        if is_fresh != (self.store is None):
            needs = "--annotations" if is_fresh else "--store"
            raise ValueError(
                f"data.view_policy is {self.data.view_policy!r}, which needs {needs}; leave it out"
            )
        if self.distillation and self.store is None:
            raise ValueError("distillation needs --store; give it, or --no-distillation")
        if self.images is None and not self.learns_from_crops:
            raise ValueError("--images must be given, except with --from-crops")
        if self.val_annotations and self.val_images is None and self.images is None:
            raise ValueError("--val-annotations need their images; give --val-images")
        if self.distillation and not self.loss.needs_teacher:
            raise ValueError(
                "the weights of all loss terms that learn from the teacher are 0, so nothing is "
                "distilled; set one, or give --no-distillation"
            )
        if not self.effective_loss.terms:
            raise ValueError("loss.regression is 0 and distillation is off: no loss is left")
        return self

    @property
    def learns_from_crops(self) -> bool:
        """Whether the stored crops are learned from, in place of images."""
        return isinstance(self.data, StoreViewSettings) and self.data.from_crops

    @property
    def effective_loss(self) -> LossConfig:
        """The loss, without its distilled terms where distillation is off."""
        return self.loss if self.distillation else self.loss.without_teacher()


class TrainTeacherConfig(TrainingConfig):
    """All settings of ``distil train-teacher``; the views are those of the released teacher."""

    resumable_changes: ClassVar[frozenset[str]] = _HOW | {
        *("store", "annotations", "images", "float16_copy"),
    }
    own_defaults: ClassVar[Mapping[str, object]] = {
        "data.recipe.scale_factor": 0.5,
        "data.recipe.rotation_degrees": 40.0,
    }

    architecture: str = "tokenpose-s"
    """Architecture: tokenpose-s, tokenpose-hrnet48, tokenpose-l, tokenpose-xs (crops of 128x96, all
    others 256x192), or timm:NAME, a trunk of timm and deconvolutions (SimpleBaseline) or HRNet."""
    annotations: InputFile | None = None
    """COCO keypoint JSON of the people, whose keypoints are learned as Gaussians."""
    store: InputStore | None = None
    """Teacher store in place of annotations, whose heatmaps are learned."""
    images: InputFolder | None = None
    """Folder of the images of the annotations, or of the store."""
    people: PeopleSettings = PeopleSettings()
    data: TeacherViewSettings = Field(default_factory=FreshViewSettings)
    heatmap_frame: HeatmapFrame = "half-pixel"
    """Convention that relates crop pixels to cells of the targets, and so of the trained
    heatmaps; of a store it is the store's own."""
    heatmap_sigma: float = Field(2.0, gt=0)
    """Standard deviation of the target Gaussians, in heatmap cells."""
    initial: InitialTeacherWeights = InitialTeacherWeights()
    float16_copy: OutputFile | None = None
    """Second weights file, at half the size; loading it gives float32 again, rounded."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, settings: Any) -> Any:
        settings = name_the_policy(settings)
        if isinstance(settings, Mapping) and isinstance(settings["data"], Mapping):
            own = {name.rpartition(".")[2]: value for name, value in cls.own_defaults.items()}
            recipe = {**own, **settings["data"].get("recipe", {})}
            settings = {**settings, "data": {**settings["data"], "recipe": recipe}}
        return settings

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.store is None) == (self.annotations is None):
            raise ValueError("give either a teacher store (--store) or --annotations")
        if isinstance(self.data, CarriedViewSettings) != (self.store is not None):
            needs = "--annotations" if self.store is None else "--store"
            raise ValueError(f"data.view_policy is {self.data.view_policy!r}, but {needs} is given")
        if self.images is None and not (
            isinstance(self.data, CarriedViewSettings) and self.data.from_crops
        ):
            raise ValueError("--images must be given, unless data.from_crops is true")
        return self
