"""Provenance of an artifact: versions and machine, recorded and printed, never compared."""

import os
import platform
import time
from importlib.metadata import version
from typing import Any

from pipeline.wording import counted

_PACKAGES = ("distil-pose", "torch", "timm", "numpy", "opencv-python-headless", "pillow", "zarr")


def provenance(**facts: Any) -> dict[str, Any]:
    """Return versions, machine and time, together with the facts of the caller."""
    cores = counted(os.cpu_count() or 1, "core")
    return {
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {cores}",
        "packages": {package: version(package) for package in _PACKAGES},
        **facts,
    }
