"""Settings of stage one, its plan and its benchmark: people, images, a teacher and a store."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config import StageConfig
from pipeline.settings import PROBE_PEOPLE, PeopleSettings, TeacherSettings, ViewRecipe
from pipeline.storage.folder import StoreLocation
from store_schemas.choices import DEFAULT_TEACHER_NAME, MAX_QUALITY, TEACHER_NAME

ProfileName = Literal["default", "small", "fast", "lossless-float16"]


class TeacherInputs(StageConfig):
    """People, a teacher, and the views in which it sees them."""

    annotations: Path
    images: Path
    teacher: Path
    profile: ProfileName = "default"
    """How heatmaps are stored."""
    crops: bool = False
    """Keep the crops too, as JPEG; the teacher then looks at what is left of them."""
    crop_quality: int = Field(90, ge=1, le=MAX_QUALITY)
    """Of JPEG."""
    crop_subsampling: Literal["4:2:0", "4:4:4"] = "4:2:0"
    """Of their colour."""
    tokens: Literal["keypoint", "visual", "both"] | None = None
    """Which tokens to keep, of a teacher that was trained here."""
    views: int = Field(8, ge=0)
    """Augmented views of every person, beside the evaluation crop."""
    seed: int = Field(0, ge=0)
    recipe: ViewRecipe = ViewRecipe()
    teacher_settings: TeacherSettings = TeacherSettings()
    people: PeopleSettings = PeopleSettings()

    @model_validator(mode="after")
    def _check_crops(self) -> Self:
        fields = type(self).model_fields
        asked = [
            f for f in ("crop_quality", "crop_subsampling") if getattr(self, f) != fields[f].default
        ]
        if asked and not self.crops:
            raise ValueError(
                "crop_quality and crop_subsampling are of crops, which are not kept; add crops, or "
                "leave them out"
            )
        return self


class CacheSettings(TeacherInputs):
    """All that a plan of a store depends on."""

    store: StoreLocation
    """Where it lies: the path of a folder, or a URL."""
    teacher_name: str = Field(DEFAULT_TEACHER_NAME, pattern=TEACHER_NAME.pattern)
    """Of the teacher's group in the store, which may hold several."""
    probe_people: int = Field(PROBE_PEOPLE, ge=1)
    accept_weak_teacher: bool = False


class CacheTeacherConfig(CacheSettings):
    """All that decides what stage one writes."""

    skip_bad: bool = False
    """Finish without the people of unreadable images, and list them."""
    accept_mended_images: bool = False
    """On resuming, take images that changed, as long as no shard was written of them."""
    grace_seconds: float = Field(20.0, ge=0)
    """On SIGTERM or Ctrl-C the running shard is finished if that takes no longer."""
