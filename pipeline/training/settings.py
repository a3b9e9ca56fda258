"""The settings of a training's parts; they load without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config import ComponentConfig, InputPath, OutputFolder
from pipeline.settings import BatchSize, ViewRecipe
from pipeline.storage.object_client import is_object_location
from store_schemas.choices import TEACHER_NAME

RegressionKind = Literal["smooth_l1", "l1"]
TeacherField = Literal["heatmaps", "keypoints", "keypoint_tokens", "visual_tokens"]
"""Fields of a teacher that a loss term may read: ``heatmaps`` include their scale, ``keypoints``
their confidences."""


@dataclass(frozen=True)
class Term:
    """Marks the setting that holds the weight of a loss term."""

    reads: frozenset[TeacherField] = frozenset()
    """Fields of ``TeacherBatch`` that the term needs; a term that reads none is a task loss."""


Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
_HEATMAPS = Term(frozenset({"heatmaps"}))


class LossConfig(ComponentConfig):
    """Weights and settings of the loss terms of a student; a weight of 0 leaves the term out."""

    regression: Annotated[Weight, Term()] = 1.0
    """Weight of the distance between keypoints and ground truth."""
    simulated_heatmap: Annotated[Weight, _HEATMAPS] = 1.0
    """Weight of the distance between the student's Gaussian and the teacher's heatmap."""
    confidence: Annotated[Weight, _HEATMAPS] = 0.01
    """Weight of the distance between a score and its target for the student's own keypoint."""
    teacher_regression: Annotated[Weight, Term(frozenset({"keypoints"}))] = 0.0
    """Weight of the distance between keypoints and the teacher's, where the ground truth has no
    label."""
    keypoint_token: Annotated[Weight, Term(frozenset({"keypoint_tokens"}))] = 0.0
    """Weight of the distance between keypoint tokens and the teacher's; 5e-4 in DistilPose."""
    visual_token: Annotated[Weight, Term(frozenset({"visual_tokens"}))] = 0.0
    """Weight of the distance between visual tokens and the teacher's; 5e-4 in DistilPose."""
    moments: Annotated[Weight, _HEATMAPS] = 0.0
    """Weight of the divergence of the student's Gaussian from the moments of the heat around the
    teacher's peak."""
    auxiliary_heatmap: Annotated[Weight, _HEATMAPS] = 0.0
    """Weight of the error of a heatmap head beside the student's, which is left out of the trained
    student."""
    covariance: Annotated[Weight, Term()] = 0.0
    """Weight of the ground truth's likelihood under a rotated Gaussian, for which the student gets
    a sixth output."""
    regression_kind: RegressionKind | Literal["rle"] = "smooth_l1"
    """Distance between keypoints and those that they learn: smooth L1, L1, or rle, the residual
    log-likelihood, whose scale is the student's sigma."""
    teacher_regression_on: Literal["unlabelled", "all"] = "unlabelled"
    """Keypoints that learn from the teacher's: those without a label, or labelled ones too."""
    teacher_weighting: Literal["confidence", "none"] = "confidence"
    """Weight of each of the teacher's keypoints: its confidence, at most 1, or 1."""
    teacher_threshold: float = Field(0.2, ge=0, allow_inf_nan=False)
    """Smallest confidence of a teacher's keypoint that an unlabelled keypoint learns from."""
    auxiliary_heatmap_target: Literal["truth", "teacher"] = "truth"
    """Heatmaps that the head learns: Gaussians around the ground truth, or the teacher's."""
    token_projector: bool = False
    """Learn a linear map from the student's tokens to the teacher's, which may have another width
    and grid."""
    score_target: Literal["heat", "oks", "oks_of_labels"] = "heat"
    """Target of a score: the teacher's heat at the student's keypoint; or the keypoint's part of
    OKS where the truth is known, and elsewhere that heat or, of labels alone, nothing."""
    distil_unlabelled_keypoints: bool = False
    """Let the heatmap terms learn from the teacher where a labelled person has an unlabelled
    keypoint; people without any label always do."""
    sigma_floor: Weight = 0.0
    """Smallest width of the simulated Gaussian in heatmap cells, added to sigma in quadrature."""
    distillation_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the weights of all distilled terms grow linearly from 0 to their values."""

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if not self.terms:
            known = ", ".join(self.all_terms())
            raise ValueError(f"all loss weights are 0, expected at least one above 0 of: {known}")
        return self

    @classmethod
    def all_terms(cls) -> dict[str, Term]:
        """Return every term by the name of its weight, in order."""
        return {
            name: mark
            for name, field in cls.model_fields.items()
            for mark in field.metadata
            if isinstance(mark, Term)
        }

    @property
    def terms(self) -> dict[str, Term]:
        """The configured terms, those whose weight is above 0, with what they then read."""
        reads_no_teacher = {
            "confidence": self.score_target == "oks_of_labels",
            "auxiliary_heatmap": self.auxiliary_heatmap_target == "truth",
        }
        return {
            name: Term() if reads_no_teacher.get(name) else term
            for name, term in self.all_terms().items()
            if getattr(self, name) > 0
        }

    @property
    def reads(self) -> frozenset[TeacherField]:
        """Fields of the teacher that the configured terms read."""
        return frozenset().union(*(term.reads for term in self.terms.values()))

    @property
    def reads_tokens(self) -> bool:
        """Whether a configured term compares tokens."""
        return bool(self.reads & {"keypoint_tokens", "visual_tokens"})

    @property
    def learns_residuals(self) -> bool:
        """Whether keypoints are regressed under a learned density of their errors."""
        regressions = {"regression", "teacher_regression"}
        return self.regression_kind == "rle" and not regressions.isdisjoint(self.terms)

    @property
    def scores_learn_oks(self) -> bool:
        """Whether scores are taught the OKS of the student's own keypoints."""
        return "confidence" in self.terms and self.score_target != "heat"

    @property
    def needs_teacher(self) -> bool:
        """Whether a configured term reads anything of a teacher."""
        return bool(self.reads)

    def without_teacher(self) -> Self:
        """Return these settings with only the terms that read nothing of a teacher.

        A score that learns the OKS of its keypoint still does so, where the truth is known.
        """
        changes: dict[str, Any] = {}
        if self.score_target == "oks":
            changes["score_target"] = "oks_of_labels"
        alone = self.model_copy(update=changes)
        distilled = [name for name, term in alone.terms.items() if term.reads]
        return alone.model_copy(update=dict.fromkeys(distilled, 0.0))


OnCorrupt = Literal["raise", "skip"]
ViewOrderName = Literal["shuffled", "blocks"]


LabelShare = Annotated[float, Field(ge=0, le=1)]


Change = Annotated[float, Field(ge=0, le=1)]


class PhotometricSettings(ComponentConfig):
    """Random changes of the colours of a crop; 0 changes nothing."""

    brightness: Change = 0.0
    """Largest change of the factor of brightness, which is uniform around 1."""
    contrast: Change = 0.0
    """Largest change of the factor of contrast."""
    saturation: Change = 0.0
    """Largest change of the factor of saturation."""


class OcclusionSettings(ComponentConfig):
    """A random rectangle of noise that hides a part of a crop."""

    probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a crop has one."""
    largest_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Largest share of the crop's area that it hides."""


class CropChanges(ComponentConfig):
    """Changes of the crops that the trained network is shown, which a teacher never sees."""

    photometric: PhotometricSettings = PhotometricSettings()
    occlusion: OcclusionSettings = OcclusionSettings()

    @property
    def change_nothing(self) -> bool:
        """Whether crops stay as they are."""
        return not (any(self.photometric.model_dump().values()) or self.occlusion.probability)


class FreshViewSettings(CropChanges):
    """Views of annotated people, drawn anew in every epoch."""

    view_policy: Literal["annotations"] = "annotations"
    recipe: ViewRecipe = ViewRecipe()
    """Distribution that the views of every epoch are drawn from."""
    image_cache_mib: int = Field(512, ge=0)
    """Memory for decoded images in each loader worker, in MiB."""
    label_share: LabelShare = 1.0
    """Share of the people whose labels are used, always the same ones; the others count as people
    without labels."""


class StoreViewSettings(CropChanges):
    """What all trainings from a teacher store can set."""

    teachers: tuple[Annotated[str, Field(pattern=TEACHER_NAME.pattern)], ...] = ()
    """Name of the teacher to learn from, for a store with several, or names of several whose
    heatmaps are averaged."""
    image_cache_mib: int = Field(512, ge=0)
    """Memory for decoded images in each loader worker, in MiB."""
    label_share: LabelShare = 1.0
    """Share of the people whose labels are used, always the same ones; the others count as people
    without labels."""
    on_corrupt: OnCorrupt = "raise"
    """Reaction to a view whose heatmaps are missing or damaged: raise stops the training, skip
    takes another view of the person and counts it, and stops above 0.1 % of the views."""
    from_crops: bool = False
    """Learn from the crops that the store holds; needs no --images."""
    paranoid: bool = False
    """Compare an image with its digest at every decode, not only when it is new or has changed."""
    store_cache: OutputFolder | None = None
    """Folder that the store's shards are copied to when they are first read; for stores in object
    stores."""
    view_order: ViewOrderName | None = None
    """Order of the views: blocks shows whole shards one after the other, each read once while all
    its views are shown; by default blocks for a store in an object store that is not cached, else
    shuffled."""

    def with_order(self, store: str) -> Self:
        """Return these settings with the order that they imply for a store."""
        if self.view_order is not None:
            return self
        # In an object store every shard that is read is downloaded whole.
        in_blocks = self.store_cache is None and is_object_location(store)
        return self.model_copy(update={"view_order": "blocks" if in_blocks else "shuffled"})


class CarriedViewSettings(StoreViewSettings):
    """Views of the people of a teacher store, drawn anew in every epoch; what the teacher predicted
    of the plain crop is carried into each of them."""

    view_policy: Literal["carry"] = "carry"
    recipe: ViewRecipe = ViewRecipe()
    """Distribution that the views of every epoch are drawn from."""


class ReplayedViewSettings(StoreViewSettings):
    """The augmented views of a teacher store, replayed."""

    view_policy: Literal["replay"] = "replay"
    num_views: int | None = Field(None, ge=1)
    """Number of augmented views of each person that are shown; by default all of the store's."""


class MirroredViewSettings(StoreViewSettings):
    """The augmented views of a teacher store and their mirror images, replayed; for a teacher
    whose heatmaps are averaged with those of the mirrored crop."""

    view_policy: Literal["mirror"] = "mirror"
    num_views: int | None = Field(None, ge=1)
    """Number of augmented views of each person that are shown, each with its mirror image; by
    default all of the store's."""


class LiveTeacherSettings(StoreViewSettings):
    """Views of the people of a teacher store, which the teacher itself predicts in every step."""

    view_policy: Literal["teacher-in-loop"] = "teacher-in-loop"
    teacher: InputPath | None = None
    """Teacher that wrote the store, with --view-policy teacher-in-loop; its settings are the
    store's. By default it is looked for where it was when the store was written."""
    num_views: int | None = Field(None, ge=1)
    """Number of the store's augmented views of each person that are shown; by default new views
    are drawn in every epoch."""
    recipe: ViewRecipe = ViewRecipe()
    """Distribution that the new views of every epoch are drawn from."""


StoreSettings = (
    CarriedViewSettings | ReplayedViewSettings | MirroredViewSettings | LiveTeacherSettings
)
"""The settings ``data`` of a training from a teacher store."""

ViewSettings = Annotated[FreshViewSettings | StoreSettings, Field(discriminator="view_policy")]
"""The settings ``data`` of a student, by the policy of the views: ``annotations``, and for a store
``carry``, ``replay``, ``mirror`` or ``teacher-in-loop``; never a mixture."""


TeacherViewSettings = Annotated[
    FreshViewSettings | CarriedViewSettings, Field(discriminator="view_policy")
]
"""The settings ``data`` of a heatmap network: ``annotations``, or ``carry`` for a store."""


def name_the_policy(settings: Any) -> Any:
    """Complete ``data`` in raw settings by its policy: by default carry for a store."""
    if not isinstance(settings, Mapping):
        return settings
    data = settings.get("data") or {}
    if isinstance(data, Mapping) and "view_policy" not in data:
        policy = "annotations" if settings.get("store") is None else "carry"
        data = {**data, "view_policy": policy}
    return {**settings, "data": data}


BatchSizeOrAuto = Annotated[
    BatchSize | None, BeforeValidator(lambda given: None if given == "auto" else given)
]
"""Number of crops; None: auto."""


class OptimisationConfig(ComponentConfig):
    """Optimiser and schedule. The defaults are DistilPose's released recipe (300 epochs)."""

    optimizer: Literal["adam", "adamw"] = "adam"
    """Optimiser: torch's Adam or AdamW."""
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    """Learning rate after the warm-up."""
    weight_decay: float = Field(0.0, ge=0)
    """Decay of the weights by ``adamw``, a factor of the learning rate."""
    batch_size: BatchSizeOrAuto = 256
    """Number of crops in a batch, at most the number of people; auto takes the largest power of two
    that fits the memory, and the run's settings then hold it."""
    micro_batch: BatchSize | None = None
    """Number of crops in one forward pass of a process; a batch's gradients are then summed over
    several passes, in less memory. Batch normalisation sees the crops of one pass. By default the
    whole batch."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """Course of the learning rate after the warm-up."""
    decay_at: tuple[float, ...] = (200 / 300, 260 / 300)
    """Fractions of the training after which the learning rate of ``step`` drops."""
    decay_rate: float = Field(0.1, gt=0, le=1)
    """Factor of each drop of ``step``."""
    min_learning_rate: float = Field(0.0, ge=0)
    """Learning rate at the end of ``cosine``."""
    warmup_steps: int = Field(500, ge=0)
    """Number of steps over which the learning rate grows linearly from its thousandth."""
    gradient_clip: float = Field(0.0, ge=0)
    """Largest norm of the gradient of all weights; 0 sets no limit."""
    average_decay: float = Field(0.0, ge=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is validated beside
    them, such as 0.999; 0 keeps none."""

    @property
    def crops_in_batch(self) -> int:
        """Number of crops in a batch, after auto was replaced by what fits."""
        assert self.batch_size is not None
        return self.batch_size

    @model_validator(mode="after")
    def _check(self) -> "OptimisationConfig":
        if list(self.decay_at) != sorted(self.decay_at) or not all(
            0 < x < 1 for x in self.decay_at
        ):
            raise ValueError(f"decay_at is {self.decay_at}; expected rising fractions of (0, 1)")
        if self.batch_size is None and self.micro_batch is not None:
            raise ValueError(
                "micro_batch limits the memory of a batch, whose largest size is then not to be "
                "found; give batch_size a number, or leave micro_batch out"
            )
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError("weight_decay needs optimizer = 'adamw', which decouples it")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate is {self.min_learning_rate}; expected at most learning_rate, "
                f"{self.learning_rate}"
            )
        return self


class InitialWeights(ComponentConfig):
    """The weights that a training starts from, and how much of them is taken."""

    weights: InputPath | None = None
    """Run folder or weights of a teacher or student that backbone and encoder start from, or a file
    of the weights that timm has for the backbone; by default random ones."""
    pretrained: bool = False
    """Start a backbone of timm from the weights it was pretrained to: those of --init-weights, of
    the extra package or of timm's cache."""
    parts: tuple[str, ...] = ("backbone", "encoder")
    """Submodules whose tensors are copied where name and shape agree."""


class InitialTeacherWeights(InitialWeights):
    """Weights of a teacher of the same architecture, whose head is taken too."""

    weights: InputPath | None = None
    """Run folder or weights of another teacher to start from, for example one of other photographs,
    or a file of the weights that timm has for the backbone."""
    parts: tuple[str, ...] = ("backbone", "encoder", "head")
    """Submodules whose tensors are copied where name and shape agree."""
