"""Settings of ``distil show``, which draws a teacher store, a student, or attention."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from pipeline.config import (
    InputFile,
    InputFolder,
    OutputFile,
    StageConfig,
    validate_config,
)
from pipeline.errors import ConfigError
from pipeline.settings import DeviceName, InputStore, TeacherPath, TeacherSettings
from pipeline.wording import in_series
from stages.settings.evaluation import StoredTeacher


class _Picture(StageConfig):
    """Settings of every picture."""

    output: OutputFile
    """PNG file to write."""
    images: InputFolder | None = None
    """Folder of the images; by default the one that the store was made from, or that of the run's
    validation."""
    seed: int = Field(0, ge=0)
    """Seed of the choice of people."""

    @model_validator(mode="after")
    def _check_output(self) -> Self:
        if self.output.suffix.lower() != ".png":
            raise ValueError(f"output must be a file name that ends in .png, got {self.output}")
        return self


class ShowConfig(_Picture, StoredTeacher):
    """A picture of a teacher store."""

    num_people: int = Field(8, ge=1)
    """Number of people, a row each; fewer where there are fewer."""
    num_views: int = Field(3, ge=0)
    """Number of augmented views of each person; fewer where the store holds fewer."""


class _OfAnnotatedPeople(_Picture):
    annotations: InputFile | None = None
    """COCO keypoint JSON of the people; by default those of the run's validation."""

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        if self.annotations is not None and self.images is None:
            raise ValueError("--annotations need --images, the folder of the annotated images")
        return self


class ShowStudentConfig(_OfAnnotatedPeople):
    """A picture of a student's poses, beside a teacher's."""

    run_folder: InputFolder
    """Run folder of a student, whose poses are drawn beside the truth and, where a store or a
    teacher is given, beside the teacher's, with the heatmaps of both."""
    store: InputStore | None = None
    """Teacher store whose people and predictions are drawn, in place of annotations."""
    teacher_name: str | None = None
    """Name of the teacher, for a store with several."""
    teacher: TeacherPath | None = None
    """Heatmap teacher to draw beside the student: a .onnx file, a published checkpoint, a ViTPose
    of Hugging Face (its folder, or hf:OWNER/NAME), or a run folder of train-teacher;
    docs/teachers.md lists them."""
    teacher_settings: TeacherSettings = TeacherSettings(flip_test=True)
    worst: int | None = Field(None, ge=1)
    """Number of people with the student's lowest OKS to draw, the lowest first, in place of people
    spread over all."""
    num_people: int = Field(8, ge=1)
    """Number of people, a row each; fewer where there are fewer."""
    device: DeviceName = "auto"
    """Device that the student runs on."""

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if self.store is not None and self.annotations is not None:
            raise ValueError("a store has its own people; leave --annotations or the store out")
        if self.store is not None and self.teacher is not None:
            raise ValueError("a store has its own teacher; leave --teacher or the store out")
        if self.store is None and self.teacher_name is not None:
            raise ValueError("--teacher-name has no effect without a store; leave it out")
        if self.teacher is None and "teacher_settings" in self.model_fields_set:
            raise ValueError(
                "the options of a teacher have no effect without --teacher; leave them out"
            )
        if self.worst is not None and "num_people" in self.model_fields_set:
            raise ValueError("--worst is the number of people; leave --people out")
        return self


class ShowAttentionConfig(_OfAnnotatedPeople):
    """A picture of a network's attention."""

    attention: InputFolder
    """Run folder of a student, or of a teacher of train-teacher, whose attention from keypoint
    tokens to the image is drawn, a column a layer."""
    num_people: int = Field(2, ge=1)
    """Number of people, a row for each of their keypoints; fewer where there are fewer."""
    keypoints: tuple[str, ...] = ()
    """Names of the keypoints, with commas between them; by default five of the labelled ones of
    each person."""
    device: DeviceName = "auto"
    """Device that the network runs on."""


PictureConfig = ShowConfig | ShowStudentConfig | ShowAttentionConfig
_KINDS: dict[str, type[PictureConfig]] = {
    "attention": ShowAttentionConfig,
    "run_folder": ShowStudentConfig,
    "store": ShowConfig,
}


def picture_of(
    settings: Mapping[str, object], option_names: Mapping[str, str] = {}
) -> PictureConfig:
    """Build the configuration of a picture from nested settings; their source tells its kind.

    Raises:
        ConfigError: there is no source, or a setting is unknown, missing or not of the source.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    source = next((name for name in _KINDS if name in given), None)
    if source is None:
        raise ConfigError(
            "nothing to draw is given; give a STORE, --run-folder of a student, or --attention"
        )
    kind = _KINDS[source]

    def named(name: str) -> str:
        return option_names.get(name, name)

    for name in given:
        users = [other for other, model in _KINDS.items() if name in model.model_fields]
        if users and source not in users:
            raise ConfigError(
                f"{named(name)} has no effect with {named(source)}, only with "
                f"{in_series([*map(named, users)])}; leave it out"
            )
    return validate_config(kind, given, option_names)
