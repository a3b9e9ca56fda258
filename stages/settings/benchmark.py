"""Settings of the commands of ``distil benchmark``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.caching.settings import TeacherInputs
from pipeline.config import InputFile, InputFolder, OutputFolder, StageConfig
from pipeline.settings import (
    MAX_PROCESSES,
    BatchSize,
    DeviceName,
    NumAugmentedViews,
    NumThreads,
    PeopleSettings,
    Precision,
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


_STUDENTS = ("distilpose-xs", "distilpose-s")
_TEACHER = "tokenpose-hrnet48"


class BenchmarkTrainConfig(StageConfig):
    """All settings of ``distil benchmark train``."""

    students: tuple[str, ...] = Field(_STUDENTS, min_length=1)
    """Architecture of a student; repeatable: the first one is trained by two processes too, and the
    last one with the teacher in the loop."""
    teacher: str = _TEACHER
    """Architecture of the teacher in the loop; its weights are random."""
    batch_size: BatchSize = 32
    """Number of crops of a step, with the loss of five terms and plainly."""
    loop_batch_size: BatchSize = 8
    """Number of crops of a step with the teacher in the loop."""
    shared_batch_size: int = Field(64, ge=2)
    """Number of crops of a step that two processes share; 64 leave each 32."""
    rounds: int = Field(9, ge=1)
    """Number of turns of each way, after one that warms up."""
    device: DeviceName = "auto"
    """Device of the steps; two processes are always measured on the CPU."""
    precision: Precision | None = None
    """Number format of the network's products; by default that of train-student."""
    num_threads: NumThreads | None = 1
    """Number of CPU threads of a step."""
    output: OutputFolder | None = None
    """Folder for train.json."""


class BenchmarkLoaderConfig(StageConfig):
    """All settings of ``distil benchmark loader``."""

    store: InputFolder
    """Teacher store with crops and augmented views, of one whole shard at least."""
    student: str = "distilpose-xs"
    """Architecture of the student that is trained from the crops."""
    batch_size: BatchSize = 32
    """Number of crops of a step."""
    num_loader_workers: int = Field(2, ge=1, le=MAX_PROCESSES)
    """Number of processes that load crops."""
    steps: int = Field(40, ge=1)
    """Number of timed steps."""
    people: tuple[Annotated[int, Field(ge=1)], ...] = (1_000, 10_000, 100_000, 1_000_000)
    """Numbers of people that the store is multiplied to, by hard links."""
    device: DeviceName = "auto"
    """Device of the training."""
    precision: Precision | None = None
    """Number format of the network's products; by default that of train-student."""
    num_threads: NumThreads | None = 1
    """Number of CPU threads of the training."""
    output: OutputFolder = Path("benchmark-loader")
    """Folder for loader.json and for scratch files, on the store's file system."""


class BenchmarkInferenceConfig(StageConfig):
    """All settings of ``distil benchmark inference``."""

    student: str = "distilpose-s"
    """Architecture of the student."""
    teacher: str = _TEACHER
    """Architecture of the teacher."""
    rounds: int = Field(5, ge=1)
    """Number of timed calls of a batch of 64; six times as many of a batch of 1."""
    output: OutputFolder | None = None
    """Folder for inference.json."""
