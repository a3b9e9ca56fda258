"""Settings of ``distil evaluate``, ``compare`` and the commands of ``distil store``."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config import (
    InputFile,
    InputFolder,
    InputPath,
    OutputFile,
    OutputFolder,
    StageConfig,
    validate_config,
)
from pipeline.errors import ConfigError
from pipeline.settings import (
    KEYPOINT_THRESHOLD,
    BatchSize,
    DeviceName,
    InputStore,
    PeopleSettings,
    TeacherPath,
    TeacherSettings,
)
from pipeline.wording import in_series

KeypointThreshold = Annotated[
    float | None, BeforeValidator(lambda given: None if given == "none" else given)
]


class _Evaluation(StageConfig):
    """Settings of every evaluation."""

    people: PeopleSettings = PeopleSettings()
    min_ap: float | None = Field(None, ge=0, le=1)
    """Smallest AP; the exit code is 1 below it."""
    output: OutputFolder | None = None
    """Folder for evaluation.json and results.json; by default evaluation.json goes into the run
    folder, where there is one."""


class _AgainstAnnotations(_Evaluation):
    annotations: InputFile
    """COCO keypoint JSON with the truth."""


class _ScoredHere(_Evaluation):
    keypoint_threshold: KeypointThreshold = KEYPOINT_THRESHOLD
    """Threshold above which keypoint scores are averaged to a pose's score; none averages all."""
    batch_size: BatchSize = 64
    """Number of crops, or of people of a store, in a batch."""


class EvaluatePredictions(_AgainstAnnotations):
    """Evaluation of another tool's results."""

    predictions: InputFile
    """COCO keypoint results of any tool, whose poses and scores are not changed."""


class EvaluateStore(_ScoredHere):
    """Evaluation of the heatmaps that a teacher store holds for view 0."""

    store: InputStore
    """Teacher store whose own outputs of view 0 are evaluated; needs no other input."""
    annotations: InputFile | None = None
    """COCO keypoint JSON with the truth; by default, for a store, the people that it holds."""
    teacher_name: str | None = None
    """Name of the teacher, for a store with several."""
    store_cache: OutputFolder | None = None
    """Folder that the store's shards are copied to when they are first read; for stores in object
    stores."""

    @model_validator(mode="after")
    def _check_people(self) -> Self:
        skeleton_only = PeopleSettings(skeleton=self.people.skeleton)
        if self.annotations is None and self.people != skeleton_only:
            raise ValueError(
                "the settings of people have no effect with --store alone, whose own people "
                "count; leave them out, or give --annotations"
            )
        return self


class EvaluateNetwork(_AgainstAnnotations, _ScoredHere):
    """Evaluation of a network, on crops of the images."""

    images: InputFolder
    """Folder of the images; file names in the annotations are relative to it."""
    detections: InputFile | None = None
    """COCO results with a detector's boxes, in place of those of the annotated people."""
    flip_test: bool = True
    """Average the prediction with that of the mirrored crop."""
    padding: float | None = Field(None, ge=1)
    """Factor by which a box is enlarged before it is cropped; by default the one that the network
    was trained with, 1.25 where its file does not tell."""


class _EvaluateStudent(EvaluateNetwork):
    device: DeviceName = "auto"
    """Device that the student runs on."""


class EvaluateRun(_EvaluateStudent):
    """Evaluation of the best weights of a student's run."""

    run_folder: InputFolder
    """Run folder of a student, whose best weights are evaluated."""


class EvaluateWeights(_EvaluateStudent):
    """Evaluation of a student's weights file."""

    weights: InputFile
    """Weights file of a student, trained here or published."""


class EvaluateExported(EvaluateNetwork):
    """Evaluation of a student that is one file."""

    student: InputFile
    """Student that ``distil export`` wrote, run by onnxruntime, or the published checkpoint of a
    student."""


class EvaluateTeacher(EvaluateNetwork):
    """Evaluation of a teacher."""

    teacher: TeacherPath
    """Heatmap teacher: a .onnx file, a published checkpoint, a ViTPose of Hugging Face (its
    folder, or hf:OWNER/NAME), or a run folder of train-teacher; docs/teachers.md lists them."""
    teacher_settings: TeacherSettings = TeacherSettings()
    device: DeviceName = "auto"
    """Device that the teacher runs on."""

    @model_validator(mode="after")
    def _check_teacher_settings(self) -> Self:
        if self.teacher_settings.device not in ("auto", self.device):
            raise ValueError("teacher_settings.device contradicts device; set device only")
        if self.teacher_settings.flip_test and not self.flip_test:
            raise ValueError("teacher_settings.flip_test contradicts flip_test; set flip_test only")
        return self


EvaluateConfig = (
    EvaluateRun
    | EvaluateWeights
    | EvaluateExported
    | EvaluateTeacher
    | EvaluateStore
    | EvaluatePredictions
)
"""The settings of an evaluation are those of its source, and no others."""

_SOURCES: dict[str, type[EvaluateConfig]] = {
    "run_folder": EvaluateRun,
    "weights": EvaluateWeights,
    "student": EvaluateExported,
    "teacher": EvaluateTeacher,
    "store": EvaluateStore,
    "predictions": EvaluatePredictions,
}
_ADVICE = {
    "annotations": "the COCO file with the truth",
    "images": "the folder of the annotated images",
}


def evaluation_of(
    settings: Mapping[str, object], option_names: Mapping[str, str] = {}
) -> EvaluateConfig:
    """Build the configuration of an evaluation from nested settings, one of which is its source.

    Raises:
        ConfigError: there is not one source, or a setting is unknown, missing or not of the source.
    """
    given = {name for name, value in settings.items() if value is not None}

    def named(name: str) -> str:
        return option_names.get(name, name)

    sources = [name for name in _SOURCES if name in given]
    if len(sources) != 1:
        both = in_series([named(name) for name in sources]) if sources else ""
        what = f"{both} are given" if sources else "nothing to evaluate is given"
        raise ConfigError(f"{what}; give exactly one of {in_series([*map(named, _SOURCES)])}")
    (source,) = sources
    model = _SOURCES[source]
    for name in sorted(given - model.model_fields.keys()):
        users = [other for other, kind in _SOURCES.items() if name in kind.model_fields]
        if users:
            raise ConfigError(
                f"{named(name)} has no effect with {named(source)}, only with "
                f"{in_series([*map(named, users)])}; leave it out"
            )
    for name, what in _ADVICE.items():
        field = model.model_fields.get(name)
        if field is not None and field.is_required() and name not in given:
            raise ConfigError(f"{named(source)} needs {named(name)}, {what}")
    return validate_config(model, {name: settings[name] for name in given}, option_names)


class CompareConfig(StageConfig):
    """All settings of ``distil compare``."""

    annotations: InputFile
    """COCO keypoint JSON with the truth."""
    images: InputFolder
    """Folder of the images; file names in the annotations are relative to it."""
    arms: tuple[tuple[str, InputPath], ...]
    """Name and run folder of a student, or its exported or published file; the same name again is
    another seed of the same arm. Repeatable."""
    teacher: TeacherPath | None = None
    """Heatmap teacher to measure too: a .onnx file, a published checkpoint, a ViTPose of Hugging
    Face (its folder, or hf:OWNER/NAME), or a run folder of train-teacher; docs/teachers.md lists
    them."""
    teacher_settings: TeacherSettings = TeacherSettings(flip_test=True)
    device: DeviceName = "auto"
    """Device on which all networks predict, exported ones aside; their time and memory are measured
    on a core of the CPU."""
    mean_pose: InputFile | None = None
    """Training annotations, whose mean pose is put into every box as a further arm: the least that
    a network must beat."""
    people: PeopleSettings = PeopleSettings()
    seed: int = Field(0, ge=0)
    """Seed of the bootstrap."""
    measure_cost: bool = True
    """Measure time and memory of every architecture."""
    output: OutputFile | None = None
    """JSON file for all figures."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.arms:
            raise ValueError("nothing to compare is given; give --arm NAME=RUN_FOLDER for each arm")
        counts = {name: self.seeds_of(name) for name, _ in self.arms}
        if len(set(counts.values())) > 1:
            raise ValueError(f"arms need as many run folders each (one per seed), got {counts}")
        return self

    def seeds_of(self, name: str) -> int:
        return sum(other == name for other, _ in self.arms)


class StoredTeacher(StageConfig):
    """One teacher of a store."""

    store: InputStore
    """Teacher store."""
    teacher_name: str | None = None
    """Name of the teacher, for a store with several."""


class StoreInfoConfig(StageConfig):
    """All settings of ``distil store info``."""

    store: InputStore
    teacher_name: str | None = None
    """Name of the teacher, for a store with several; by default all of them."""


class StoreSources(StoredTeacher):
    """A store and what it was made from, where that is not where it was."""

    teacher: TeacherPath | None = None
    """Teacher file or run folder; by default the one that the store was made with."""
    images: InputFolder | None = None
    """Folder of the images; by default the one that the store was made from."""
    annotations: InputFile | None = None
    """COCO keypoint JSON of the people; by default the one that the store was made from."""
    detections: InputFile | None = None
    """COCO results with a detector's boxes; by default the ones that the store was made from."""


class StoreVerifyConfig(StoreSources):
    """All settings of ``distil store verify``."""

    sample: int = Field(64, ge=0)
    """Number of views that the teacher predicts again."""
    seed: int = Field(0, ge=0)
    """Seed of the choice of these views."""
    digests_only: bool = False
    """Compare digests only; the teacher predicts nothing."""


class StoreRepairConfig(StoreSources):
    """All settings of ``distil store repair``."""

    accept_mended_images: bool = False
    """Accept images that have changed, as long as no shard that is kept was written from them."""


class StoreExportConfig(StoredTeacher):
    """All settings of ``distil store export``."""

    output: OutputFile
    """JSON file to write."""
    keypoint_threshold: KeypointThreshold = KEYPOINT_THRESHOLD
    """Threshold above which keypoint scores are averaged to a pose's score; by default all are, as
    in ``distil evaluate``."""
    batch_size: BatchSize = 64
    """Number of people that are read at a time."""
