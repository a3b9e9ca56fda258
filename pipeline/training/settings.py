"""Settings of a training's parts; they load without torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import ComponentConfig, InputFile, OutputFolder
from pipeline.settings import ViewRecipe
from pipeline.storage.object_client import is_object_location
from store_schemas.choices import TEACHER_NAME

RegressionKind = Literal["smooth_l1", "l1"]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class LossConfig(ComponentConfig):
    """Which terms a student is trained with; a weight of 0 leaves the term out."""

    regression: Weight = 1.0
    """Weight of the distance between keypoints and ground truth."""
    simulated_heatmap: Weight = 1.0
    """Weight of the distance between the student's Gaussian and the teacher's heatmap."""
    confidence: Weight = 0.01
    """Weight of the distance between a score and the teacher's heat at the student's keypoint."""
    regression_kind: RegressionKind = "smooth_l1"
    distil_unlabelled_keypoints: bool = False
    """Let the two distilled terms learn from the teacher where the ground truth is silent."""
    sigma_floor: Weight = 0.0
    """Least width of the simulated Gaussian, heatmap cells, added to sigma in quadrature."""
    distillation_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the two distilled weights grow linearly from 0 to their values."""

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if not (self.regression or self.needs_teacher):
            raise ValueError(
                "all loss weights are 0, expected at least one above 0 of: regression, "
                "simulated_heatmap, confidence"
            )
        return self

    @property
    def needs_teacher(self) -> bool:
        return self.simulated_heatmap > 0 or self.confidence > 0


OnCorrupt = Literal["raise", "skip"]
ViewOrderName = Literal["shuffled", "blocks"]


class DataConfig(ComponentConfig):
    """Which views a training shows."""

    teachers: tuple[Annotated[str, Field(pattern=TEACHER_NAME.pattern)], ...] = ()
    """Name of the teacher to learn from, for a store with several, or of several whose heatmaps
    are averaged."""
    num_views: int | None = Field(None, ge=1)
    """With a store: number of the first augmented views that are shown; by default all."""
    recipe: ViewRecipe = ViewRecipe()
    """Without a store: distribution of each epoch's views."""
    image_cache_mib: int = Field(512, ge=0)
    """Memory of each loader worker for decoded images, in MiB."""
    on_corrupt: OnCorrupt = "raise"
    """With a store: reaction to a view whose heatmaps are missing or damaged: raise stops, skip
    shows another view of the person and counts it; above 0.1 % of the views it stops too."""
    from_crops: bool = False
    """Learn from the crops that the store holds; needs no --images."""
    paranoid: bool = False
    """Compare an image with its digest at every decode, not only when it is new or has changed."""
    store_cache: OutputFolder | None = None
    """Folder that the store's shards are copied to when they are first read; for stores in object
    stores."""
    view_order: ViewOrderName | None = None
    """blocks: whole shards one after the other, each read once while all its views are shown. None:
    blocks for a store in an object store that is not cached, else shuffled."""

    def with_order(self, store: str | None) -> Self:
        """Return these settings with the order that they imply for a store, None for no store."""
        if self.view_order is not None:
            return self
        # In an object store every shard that is open is a download.
        in_blocks = self.store_cache is None and is_object_location(store)
        return self.model_copy(update={"view_order": "blocks" if in_blocks else "shuffled"})


def refuse_settings_of_a_store(data: DataConfig) -> None:
    """Refuse, where there is no teacher store, the settings that need one: ``ValueError``."""
    way_out = "give one, or leave it out"
    if data.paranoid:
        raise ValueError(
            f"data.paranoid is true, but only a teacher store says what the images were; {way_out}"
        )
    if data.from_crops:
        raise ValueError(
            f"data.from_crops is true, but only a teacher store holds crops; {way_out}"
        )
    if data.store_cache or data.teachers or data.view_order == "blocks":
        raise ValueError(
            "data.store_cache, data.teachers and data.view_order = blocks are for a teacher "
            "store; give one, or leave them out"
        )


class OptimisationConfig(ComponentConfig):
    """How weights are moved. The defaults are DistilPose's released recipe (300 epochs)."""

    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    """Learning rate after the warm-up."""
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(256, ge=1)
    """Number of crops in a batch."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    decay_at: tuple[float, ...] = (200 / 300, 260 / 300)
    """``step``: fractions of the training after which the learning rate drops."""
    decay_rate: float = Field(0.1, gt=0, le=1)
    """``step``: factor of each drop."""
    min_learning_rate: float = Field(0.0, ge=0)
    """``cosine``: learning rate at the end."""
    warmup_steps: int = Field(500, ge=0)
    gradient_clip: float = Field(0.0, ge=0)
    """Largest norm of the gradient of all weights; 0: no limit."""

    @model_validator(mode="after")
    def _check(self) -> "OptimisationConfig":
        if list(self.decay_at) != sorted(self.decay_at) or not all(
            0 < x < 1 for x in self.decay_at
        ):
            raise ValueError(f"decay_at is {self.decay_at}; expected rising fractions of (0, 1)")
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError("weight_decay needs optimizer = 'adamw', which decouples it")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError("min_learning_rate exceeds learning_rate")
        return self


class InitialWeights(ComponentConfig):
    """A weights file of ``train-teacher`` or ``train-student``, and how much of it is taken."""

    weights: InputFile | None = None
    """Weights of a teacher or student that backbone and encoder start from; by default random
    ones."""
    parts: tuple[str, ...] = ("backbone", "encoder")
    """Submodules whose tensors are copied where name and shape agree."""


class InitialTeacherWeights(InitialWeights):
    """A teacher of the same architecture is trained on, its head too."""

    weights: InputFile | None = None
    """Weights of another teacher to start from, for example one of other photographs."""
    parts: tuple[str, ...] = ("backbone", "encoder", "head")
