"""The drawn people that tests of the stages share."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DrawnPeople:
    """Drawn people on disk."""

    annotations: Path
    """COCO keypoint JSON."""
    images: Path
    """Folder of the images."""
