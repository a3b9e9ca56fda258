"""The peak memory of a network, in a process of its own that loads nothing but its runtime."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

_STATUS = Path("/proc/self/status")
_CHILD = (
    "import sys; from pathlib import Path; from pipeline.evaluation.peak_memory import growth; "
    "sys.stdout.write(str(growth(Path(sys.argv[1]), tuple(map(int, sys.argv[2:])))))"
)


def peak_bytes_of_onnx(model: Path, shape: tuple[int, int, int, int]) -> int | None:
    """Return by how much a process grows that opens a model and runs a batch; None: not on Linux.

    shape: (B, 3, H, W) of the batch.
    """
    if not _STATUS.is_file():
        return None
    words = [sys.executable, "-P", "-c", _CHILD, str(model), *map(str, shape)]
    # Python of the same environment, whatever folder this is and whoever called this.
    return int(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)


def open_session(model: Path, num_threads: int = 1) -> object:
    """Open a model in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = num_threads
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def growth(model: Path, shape: tuple[int, int, int, int]) -> int:
    """Return by how many bytes this process grows at its peak by opening a model and running it."""
    import onnxruntime  # noqa: F401  # the runtime itself does not count

    images = np.zeros(shape, np.float32)
    before = _in_status("VmRSS")
    session = open_session(model)
    (name,) = [value.name for value in session.get_inputs()]  # type: ignore[attr-defined]
    session.run(None, {name: images})  # type: ignore[attr-defined]
    return _in_status("VmHWM") - before


def _in_status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])
