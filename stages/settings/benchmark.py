"""Settings of the commands of ``distil benchmark``."""

from pathlib import Path

from pydantic import Field

from pipeline.caching.settings import TeacherInputs
from pipeline.config import InputFile, InputFolder, OutputFolder, StageConfig
from pipeline.settings import (
    NumAugmentedViews,
    PeopleSettings,
    TeacherPath,
    TeacherSettings,
    ViewRecipe,
)


class BenchmarkCacheConfig(TeacherInputs):
    """All settings of ``distil benchmark cache``."""

    people_count: int = Field(226, ge=1)
    """Number of people, spread evenly over all; 226 make two shards of the default views."""
    scratch: OutputFolder | None = None
    """Folder in which the stores are written, measured and deleted; by default that of temporary
    files."""
    output: OutputFolder | None = None
    """Folder for cache.json."""


class StudyInputs(StageConfig):
    """People and a teacher to measure with."""

    annotations: InputFile
    """COCO keypoint JSON of the people."""
    images: InputFolder
    """Folder of the images; file names in the annotations are relative to it."""
    teacher: TeacherPath
    """Heatmap teacher: a .onnx file, a published checkpoint, a ViTPose of Hugging Face (its
    folder, or hf:OWNER/NAME), or a run folder of train-teacher; docs/teachers.md lists them."""
    recipe: ViewRecipe = ViewRecipe()
    teacher_settings: TeacherSettings = TeacherSettings()
    people: PeopleSettings = PeopleSettings()


class BenchmarkCodecConfig(StudyInputs):
    """All settings of ``distil benchmark codec``."""

    people_count: int = Field(100, ge=1)
    """Number of people, spread evenly over all."""
    views: NumAugmentedViews = 8
    """Number of augmented views of each person, beside the plain crop."""
    seed: int = Field(0, ge=0)
    """Seed of the random views."""
    sweep: bool = False
    """Measure the whole search space from which the profiles were chosen; takes far longer."""
    output: OutputFolder | None = None
    """Folder for codec.json."""


class BenchmarkCropsConfig(StudyInputs):
    """All settings of ``distil benchmark crops``."""

    people_count: int = Field(500, ge=1)
    """Number of people, spread evenly over all."""
    store: InputFolder | None = None
    """Store of these images with crops, whose loading is measured too."""
    output: OutputFolder | None = None
    """Folder for crops.json."""


class BenchmarkStoreConfig(StageConfig):
    """All settings of ``distil benchmark store``."""

    store: tuple[InputFolder, ...] = Field(min_length=1)
    """Complete teacher store; repeatable, for example one of each profile."""
    views: int = Field(100_000, ge=1)
    """Number of views that a smaller store is multiplied to, by hard links."""
    large_views: int = Field(3_000_000, ge=0)
    """Number of views at which opening and memory are measured too; 0 leaves that out."""
    images: InputFolder | None = None
    """Folder of the stores' images, to measure the loading of training batches too."""
    batches: int = Field(40, ge=2)
    """Number of batches of 64 that every reader reads, in turns with raw float16."""
    rounds: int = Field(5, ge=1)
    """Number of turns of each reader."""
    worker_batches: int = Field(1000, ge=1)
    """Number of batches that a worker reads before its memory is measured."""
    loader_processes: int = Field(5, ge=1)
    """Number of processes that load training batches, one after the other: they differ by some
    hundredths."""
    output: OutputFolder = Path("benchmark-store")
    """Folder for store.json and for scratch files, on the stores' file system."""
