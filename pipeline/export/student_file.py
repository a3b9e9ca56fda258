"""A student that ``distil export`` wrote: an ONNX model that carries its own description.

Its input ``crops`` is (B, H, W, 3) uint8, RGB: pixels as image decoders and cameras deliver them.
The description is JSON under the key ``distil`` of the model's metadata, so that any program can
read it: names and sigmas of the keypoints, edges, mirrored pairs, size and padding of the crops,
mean and standard deviation, the rule of a pose's score, and the digests of weights and store.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.config import ComponentConfig
from pipeline.errors import ExportError
from pipeline.export.runtime import fixed_batch_size, open_session, require_onnx
from pipeline.runs.checkpoints import CheckpointInfo
from pipeline.wording import one_line

Precision = Literal["float32", "float16", "int8"]
METADATA_KEY = "distil"
CROPS = "crops"
OUTPUTS = {
    "keypoints": "(batch, K, 2) as (x, y), crop pixels; a pixel's centre has integer coordinates",
    "scores": "(batch, K), raw; which of them were trained is in scored_keypoints",
    "sigmas": "(batch, K, 2) as (x, y), cells of the teacher's heatmap, above 0",
}
"""Outputs of the model by name, in order."""


class ExportedStudent(ComponentConfig):
    """Description of an exported student, which its file carries."""

    version: Literal[1] = 1
    network: CheckpointInfo
    precision: Precision
    batch_size: int | None
    """Size of the only batch that the model takes; None: any."""
    weights_sha256: str
    """Digest of the weights file that was exported."""
    num_parameters: int
    num_multiply_adds: int
    """Multiply-adds for one crop."""


class StudentArrays(NamedTuple):
    """Outputs of an exported student for a batch of crops, see ``OUTPUTS``."""

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    sigmas: NDArray[np.float32]


class StudentFile:
    """An exported student, run by onnxruntime on the CPU."""

    def __init__(self, model: Path | bytes, num_threads: int = 1) -> None:
        """Open a model, or a file that holds one.

        Raises:
            ExportError: it is no model, or none that ``distil export`` wrote.
            ConfigError: onnxruntime is not installed.
        """
        require_onnx("onnxruntime")
        name = "the model" if isinstance(model, bytes) else str(model)
        self._session = _open(model, name, num_threads)
        self.description = _description(self._session, name)
        self.fixed_batch_size = fixed_batch_size(self._session)

    def predict(self, crops: NDArray[np.uint8]) -> StudentArrays:
        """Predict (B, H, W, 3) uint8 RGB crops, in as many parts as a fixed batch size needs."""
        size = self.fixed_batch_size
        if size is None:
            return self._run(crops)
        parts = []
        for first in range(0, len(crops), size):
            part = crops[first : first + size]
            rows = np.arange(size).clip(max=len(part) - 1)  # the last crop fills the last batch
            parts.append(StudentArrays(*(array[: len(part)] for array in self._run(part[rows]))))
        return StudentArrays(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _run(self, crops: NDArray[np.uint8]) -> StudentArrays:
        return StudentArrays(*self._session.run(list(OUTPUTS), {CROPS: crops}))


def _open(model: Path | bytes, name: str, num_threads: int) -> Any:
    try:
        return open_session(model, num_threads)
    except Exception as error:
        raise ExportError(f"onnxruntime cannot load {name}: {one_line(error)}") from error


def _description(session: Any, name: str) -> ExportedStudent:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
    try:
        return ExportedStudent.model_validate_json(text)
    except ValidationError as error:
        raise ExportError(
            f"{name} does not describe itself as a student of this version; expected a file that "
            "`distil export` wrote; a teacher is given with --teacher"
        ) from error
