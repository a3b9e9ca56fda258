"""onnxruntime, the runtime of ONNX models: sessions on the CPU, and inputs that a model takes.

Loads nothing but numpy before a session is opened, so that a process that measures the memory of
a model holds nothing else.
"""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

IntoModel = NDArray[np.uint8] | NDArray[np.float32]


def has_onnx() -> bool:
    """Return whether models can be exported and run: onnx and onnxruntime are installed."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


def require_onnx(*packages: str) -> None:
    """Raise ConfigError where a package is not installed: ``onnxruntime`` to run a model, and
    ``onnx`` to export one.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"ONNX models need {' and '.join(missing)}, not installed here; install the extra onnx "
            "(uv sync --extra onnx)"
        )


def open_session(model: Path | bytes, num_threads: int = 1) -> Any:
    """Open a model in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = num_threads
    # A thread that spins while it waits takes the core from whoever works.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def fixed_batch_size(session: Any) -> int | None:
    """Return the size of the only batch that a model takes; None: any."""
    (image,) = session.get_inputs()
    size = image.shape[0]
    return size if isinstance(size, int) and size > 0 else None


class CropsOfModel(NamedTuple):
    """A batch of crops as a model takes it."""

    name: str
    """Name of the model's input."""
    shape: tuple[int, ...]
    takes_pixels: bool
    """(B, H, W, 3) uint8 of an exported student; else (B, 3, H, W) float32, normalised."""

    @property
    def zeros(self) -> IntoModel:
        if self.takes_pixels:
            return np.zeros(self.shape, np.uint8)
        return np.zeros(self.shape, np.float32)

    @property
    def noise(self) -> IntoModel:
        random = np.random.default_rng(0)
        if self.takes_pixels:
            return random.integers(0, 256, self.shape, np.uint8)
        return random.standard_normal(self.shape, np.float32)


def crops_of_model(session: Any, batch: int, size_hw: tuple[int, int]) -> CropsOfModel:
    """Return what a batch of crops of one size is for a model."""
    (image,) = session.get_inputs()
    takes_pixels = image.type == "tensor(uint8)"
    shape = (batch, *size_hw, 3) if takes_pixels else (batch, 3, *size_hw)
    return CropsOfModel(image.name, shape, takes_pixels)
