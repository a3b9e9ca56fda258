"""Settings of stage one, its plan and its benchmark: people, images, a teacher and a store."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config import ComponentConfig, InputFile, InputFolder, StageConfig
from pipeline.settings import (
    PROBE_PEOPLE,
    NumAugmentedViews,
    StoredPeopleSettings,
    TeacherPath,
    TeacherSettings,
    ViewRecipe,
)
from pipeline.storage.folder import StoreLocation
from store_schemas.choices import (
    DEFAULT_TEACHER_NAME,
    MAX_CROP_MARGIN,
    MAX_QUALITY,
    TEACHER_NAME,
)

ProfileName = Literal["default", "small", "fast", "lossless-float16", "keypoints"]

MARGIN_OF_PLAIN_CROPS = 0.5
"""Default margin where only plain crops are stored: docs/teacher-store.md has the figures."""


class TeacherInputs(StageConfig):
    """People, a teacher, and the views that it predicts."""

    annotations: InputFile
    """COCO keypoint JSON of the people and their images."""
    images: InputFolder
    """Folder of the images; file names in the annotations are relative to it."""
    teacher: TeacherPath
    """Heatmap teacher: a .onnx file, a published checkpoint, a ViTPose of Hugging Face (its
    folder, or hf:OWNER/NAME), or a run folder of train-teacher; docs/teachers.md lists them."""
    profile: ProfileName = "default"
    """Format of the stored heatmaps; keypoints: keypoints and confidences alone."""
    crops: bool = False
    """Store the crops too, as JPEG, so that a student needs no images; the teacher then predicts
    on the decoded JPEG."""
    crop_quality: int = Field(90, ge=1, le=MAX_QUALITY)
    """Quality of the stored JPEG crops, 1 to 95."""
    crop_subsampling: Literal["4:2:0", "4:4:4"] = "4:2:0"
    """Chroma subsampling of the stored JPEG crops."""
    crop_margin: float | None = Field(None, ge=0, le=MAX_CROP_MARGIN)
    """Width of the margin that is stored around the teacher's crop, as a fraction of the crop's
    size on each side, so that a student can be shown other views without the images; by default
    0.5 with --views 0, else 0."""
    tokens: Literal["keypoint", "visual", "both"] | None = None
    """Kind of tokens to store too, for a teacher of train-teacher."""
    token_format: Literal["int8", "float16"] = "int8"
    """Format of the stored tokens: int8 with a scale for each token, or float16 in twice the
    bytes."""
    views: NumAugmentedViews = 8
    """Number of augmented views of each person, beside the plain crop."""
    seed: int = Field(0, ge=0)
    """Seed of the random views."""
    recipe: ViewRecipe = ViewRecipe()
    teacher_settings: TeacherSettings = TeacherSettings()
    people: StoredPeopleSettings = StoredPeopleSettings()

    @model_validator(mode="after")
    def _check_optional_arrays(self) -> Self:
        fields = type(self).model_fields
        settings = ("crop_quality", "crop_subsampling", "crop_margin")
        if not self.crops and any(getattr(self, f) != fields[f].default for f in settings):
            raise ValueError(
                "crop_quality, crop_subsampling and crop_margin must be left out unless crops are "
                "stored; add crops, or leave them out"
            )
        if self.tokens is None and self.token_format != fields["token_format"].default:
            raise ValueError(
                "token_format must be left out unless tokens are stored; add tokens, or leave it "
                "out"
            )
        return self

    @property
    def stored_crop_margin(self) -> float:
        """Margin of the stored crops, as a fraction of their size on each side."""
        if self.crop_margin is not None:
            return self.crop_margin
        # without augmented views a student's new views are cut from the plain crop
        return MARGIN_OF_PLAIN_CROPS if self.views == 0 else 0.0


class ComparedTraining(ComponentConfig):
    """A training whose teacher in the loop a plan compares the store with."""

    student: str = "distilpose-s"
    """Architecture of the student whose training --plan compares the store with."""
    epochs: int = Field(300, ge=1)
    """Number of epochs of that training."""


class CacheSettings(TeacherInputs):
    """All that a plan of a store depends on."""

    store: StoreLocation
    """Teacher store to write: a folder such as teacher.zarr, or a URL such as
    s3://bucket/teacher.zarr."""
    teacher_name: str = Field(DEFAULT_TEACHER_NAME, pattern=TEACHER_NAME.pattern)
    """Name of the teacher in the store; a new name adds a teacher to a store of the same people."""
    probe_people: int = Field(PROBE_PEOPLE, ge=1)
    """Number of people that the teacher is tried on first."""
    training: ComparedTraining = ComparedTraining()
    accept_weak_teacher: bool = False
    """Continue although the teacher misses the annotated keypoints, or would find clearly more of
    them under other settings."""


class CacheTeacherConfig(CacheSettings):
    """All that decides what stage one writes."""

    skip_bad: bool = False
    """Leave out people whose image cannot be decoded, and list them."""
    accept_mended_images: bool = False
    """Accept changed images with --resume, as long as no shard was written from them."""
    grace_seconds: float = Field(20.0, ge=0)
    """Time in seconds that the running shard may take to finish after SIGTERM or Ctrl-C."""
