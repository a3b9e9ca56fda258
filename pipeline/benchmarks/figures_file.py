"""The JSON file that a benchmark leaves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import StageConfig
from pipeline.runs.provenance import provenance
from pipeline.storage.files import make_folder, publish


def write_figures(path: Path, config: StageConfig, figures: Mapping[str, Any]) -> Path:
    """Write figures beside the settings and the machine that they were measured with.

    Raises:
        StorageError: the file cannot be written.
    """
    make_folder(path.parent)
    document = {"config": json.loads(config.to_json()), "provenance": provenance(), **figures}
    publish(path, (json.dumps(document, indent=1) + "\n").encode())
    return path
