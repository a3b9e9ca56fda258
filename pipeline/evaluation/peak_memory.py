"""The peak memory of a network, in a process of its own that loads nothing but its runtime."""

import re
import subprocess
import sys
from pathlib import Path

from pipeline.export.runtime import crops_of_model, open_session

_STATUS = Path("/proc/self/status")
_CHILD = (
    "import sys; from pathlib import Path; from pipeline.evaluation.peak_memory import growth; "
    "batch, *size = map(int, sys.argv[2:]); "
    "sys.stdout.write(str(growth(Path(sys.argv[1]), batch, tuple(size))))"
)


def peak_bytes_of_onnx(model: Path, batch: int, size_hw: tuple[int, int]) -> int | None:
    """Return by how much a process grows that opens a model and runs a batch; None: not on Linux.

    size_hw: (H, W) of the crops.
    """
    if not _STATUS.is_file():
        return None
    words = [sys.executable, "-P", "-c", _CHILD, str(model), *map(str, (batch, *size_hw))]
    # Python of the same environment, whatever folder this is and whoever called this.
    return int(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)


def growth(model: Path, batch: int, size_hw: tuple[int, int]) -> int:
    """Return by how many bytes this process grows at its peak by opening a model and running it."""
    import onnxruntime  # noqa: F401  # the runtime itself does not count

    before = _in_status("VmRSS")
    session = open_session(model)
    crops = crops_of_model(session, batch, size_hw)
    session.run(None, {crops.name: crops.zeros})
    return _in_status("VmHWM") - before


def peak_of_this_process() -> int | None:
    """Return the peak memory of this process in bytes; None: not on Linux."""
    return _in_status("VmHWM") if _STATUS.is_file() else None


def _in_status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])
