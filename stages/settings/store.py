"""Settings of the commands of ``distil store``."""

from pydantic import Field

from pipeline.config import InputFile, InputFolder, InputPath, OutputFile, StageConfig
from pipeline.settings import InputStore


class StoreInfoConfig(StageConfig):
    """All settings of ``distil store info``."""

    store: InputStore
    teacher_name: str | None = None
    """Name of the teacher, for a store with several; by default all of them."""


class StoreSources(StageConfig):
    """A store and what it was made from, where that is not where it was."""

    store: InputStore
    teacher_name: str | None = None
    """Name of the teacher, for a store with several."""
    teacher: InputPath | None = None
    """Teacher file or run folder; by default the one that the store was made with."""
    images: InputFolder | None = None
    """Folder of the images; by default the one that the store was made from."""
    annotations: InputFile | None = None
    """COCO keypoint JSON of the people; by default the one that the store was made from."""


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


class StoreExportConfig(StageConfig):
    """All settings of ``distil store export``."""

    store: InputStore
    teacher_name: str | None = None
    """Name of the teacher, for a store with several."""
    output: OutputFile
    """JSON file to write."""
    keypoint_threshold: float = 0.2
    """Threshold above which keypoint scores are averaged to a pose's score, as in
    ``distil evaluate``."""
    batch_size: int = Field(64, ge=1)
    """Number of people that are read at a time."""
