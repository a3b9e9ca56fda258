"""Settings of the commands of ``distil benchmark``."""

from pathlib import Path

from pydantic import Field

from pipeline.caching.settings import TeacherInputs
from pipeline.config import StageConfig
from pipeline.settings import PeopleSettings, TeacherSettings, ViewRecipe


class BenchmarkCacheConfig(TeacherInputs):
    """All settings of ``distil benchmark cache``."""

    people_count: int = Field(226, ge=1)
    """Spread evenly over all people; so many make two shards of the default views."""
    scratch: Path | None = None
    """Where the stores lie while they are measured; None: the folder for temporary files."""
    output: Path | None = None
    """Folder for cache.json."""


class BenchmarkCodecConfig(StageConfig):
    """All settings of ``distil benchmark codec``."""

    annotations: Path
    images: Path
    teacher: Path
    people_count: int = Field(100, ge=1)
    """Spread evenly over all people."""
    views: int = Field(8, ge=0)
    """Augmented views of each, beside the evaluation crop."""
    seed: int = Field(0, ge=0)
    """Draws the views."""
    sweep: bool = False
    """The whole search space, not the profiles alone."""
    output: Path | None = None
    """Folder for codec.json."""
    recipe: ViewRecipe = ViewRecipe()
    teacher_settings: TeacherSettings = TeacherSettings()
    people: PeopleSettings = PeopleSettings()


class BenchmarkCropsConfig(StageConfig):
    """All settings of ``distil benchmark crops``."""

    annotations: Path
    images: Path
    teacher: Path
    people_count: int = Field(500, ge=1)
    """Spread evenly over all people."""
    store: Path | None = None
    """A store of these images with crops: its loading is measured too."""
    output: Path | None = None
    """Folder for crops.json."""
    recipe: ViewRecipe = ViewRecipe()
    teacher_settings: TeacherSettings = TeacherSettings()
    people: PeopleSettings = PeopleSettings()


class BenchmarkStoreConfig(StageConfig):
    """All settings of ``distil benchmark store``."""

    store: tuple[Path, ...] = Field(min_length=1)
    """Complete stores, for example one of each profile."""
    views: int = Field(100_000, ge=1)
    """A store is multiplied by hard links to about as many; a larger one is taken as it is."""
    large_views: int = Field(3_000_000, ge=0)
    """Opening and memory are measured at as many too; 0: not."""
    images: Path | None = None
    """Folder of the stores' images, to load training batches from."""
    batches: int = Field(40, ge=2)
    """Batches of 64 that every reader reads, in turns with raw float16."""
    rounds: int = Field(5, ge=1)
    worker_batches: int = Field(1000, ge=1)
    """Batches that a worker reads before its memory is measured."""
    loader_processes: int = Field(5, ge=1)
    """That load training batches, one after the other: they differ by some hundredths."""
    output: Path = Path("benchmark-store")
    """Folder for store.json; scratch files go there too, on the stores' file system."""
