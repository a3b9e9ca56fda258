"""Settings of the commands of ``distil store``."""

from pathlib import Path

from pydantic import Field

from pipeline.config import StageConfig
from pipeline.storage.folder import StoreLocation


class StoreInfoConfig(StageConfig):
    """All settings of ``distil store info``."""

    store: StoreLocation
    teacher_name: str | None = None
    """None: all of them."""


class StoreVerifyConfig(StageConfig):
    """All settings of ``distil store verify``."""

    store: StoreLocation
    teacher_name: str | None = None
    """None: the only one."""
    teacher: Path | None = None
    """None: the one that the store was made with, if it is still there; so for the others."""
    images: Path | None = None
    annotations: Path | None = None
    sample: int = Field(64, ge=0)
    """Views that the teacher is shown again."""
    seed: int = Field(0, ge=0)
    """Chooses them."""
    digests_only: bool = False
    """Ask no teacher."""


class StoreRepairConfig(StageConfig):
    """All settings of ``distil store repair``."""

    store: StoreLocation
    teacher_name: str | None = None
    """None: the only one."""
    teacher: Path | None = None
    """None: the one that the store was made with, if it is still there; so for the others."""
    images: Path | None = None
    annotations: Path | None = None
    accept_mended_images: bool = False
    """Take images that changed, as long as no shard that is kept was written of them."""


class StoreExportConfig(StageConfig):
    """All settings of ``distil store export``."""

    store: StoreLocation
    teacher_name: str | None = None
    """None: the only one."""
    output: Path
    """The JSON file to write."""
    keypoint_threshold: float = 0.2
    """Keypoint scores above it are averaged to a pose's score, as ``distil evaluate`` does."""
    batch_size: int = Field(64, ge=1)
