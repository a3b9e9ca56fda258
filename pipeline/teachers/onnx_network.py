"""Any ONNX heatmap model through onnxruntime: one image input, one (B, K, Hh, Wh) output."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TeacherError
from pipeline.frames.geometry import HeatmapFrame, SizeHW
from pipeline.teachers.teacher import TeacherSettings


class OnnxNetwork:
    """An ONNX file as a heatmap network; sizes come from the file where it states them."""

    kind = "onnx"
    heatmap_frame: HeatmapFrame = "msra"

    def __init__(self, path: Path, settings: TeacherSettings) -> None:
        self.architecture = path.name
        self.sha256 = sha256_of_model(path)
        self._session = _open_session(path, settings.num_threads)
        image = self._session.get_inputs()[0]
        self._input_name: str = image.name
        self.fixed_batch_size = _static(image.shape[0])
        self.input_size_hw = _input_size(path, image.shape, settings.input_size_hw)
        self._output_name = _output_name(
            path, [output.name for output in self._session.get_outputs()], settings.output_name
        )
        self.num_keypoints, self.heatmap_size_hw = self._output_size(path)

    def forward(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (B, K, Hh, Wh) raw heatmaps of (B, 3, H, W) normalised crops."""
        (heatmaps,) = self._session.run([self._output_name], {self._input_name: images})
        return np.asarray(heatmaps, np.float32)

    def _output_size(self, path: Path) -> tuple[int, SizeHW]:
        """Learn K and the heatmap size by running once: files often leave them dynamic."""
        images = np.zeros((self.fixed_batch_size or 1, 3, *self.input_size_hw), np.float32)
        try:
            shape = self.forward(images).shape
        except Exception as error:
            raise TeacherError(
                f"{path} cannot run on a {images.shape} float32 input: {_one_line(error)}"
            ) from error
        if len(shape) != 4:
            raise TeacherError(
                f"output {self._output_name} of {path} has shape {shape}; expected heatmaps "
                "(batch, keypoints, height, width); pick another with --output-name"
            )
        return shape[1], (shape[2], shape[3])


def sha256_of_model(path: Path) -> str:
    """Return the sha256 over an ONNX file and the external data files it names, in name order."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    digest = hashlib.sha256(path.read_bytes())
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise TeacherError(f"{path} is no ONNX model: {_one_line(error)}") from error
    names = {
        ExternalDataInfo(tensor).location
        for tensor in model.graph.initializer
        if uses_external_data(tensor)
    }
    for name in sorted(names):
        external = path.parent / name
        if not external.is_file():
            raise TeacherError(
                f"{path} keeps weights in {name}, which is not beside it; put it there"
            )
        digest.update(external.read_bytes())
    return digest.hexdigest()


def _open_session(path: Path, num_threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise TeacherError(
            f"{path} needs onnxruntime, which is not installed; install distil-pose[onnx]"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # A thread that spins while it waits takes the core from those that decode the next crops.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    available = onnxruntime.get_available_providers()
    preferred = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=[name for name in preferred if name in available]
        )
    except Exception as error:
        raise TeacherError(f"onnxruntime cannot load {path}: {_one_line(error)}") from error


def _input_size(path: Path, shape: list[Any], given: SizeHW | None) -> SizeHW:
    """Return the crop size, from the model or else from the settings."""
    if len(shape) != 4 or _static(shape[1]) not in (3, None):
        raise TeacherError(
            f"the input of {path} has shape {shape}; expected (batch, 3, height, width)"
        )
    height, width = _static(shape[2]), _static(shape[3])
    if height is None or width is None:
        if given is None:
            raise TeacherError(
                f"{path} takes any height and width; say which with --input-size, for example "
                "--input-size 256x192 (height x width)"
            )
        return given
    if given is not None and given != (height, width):
        raise TeacherError(
            f"{path} takes {height}x{width} (height x width) and --input-size says "
            f"{given[0]}x{given[1]}; leave it out"
        )
    return height, width


def _output_name(path: Path, names: list[str], wanted: str | None) -> str:
    if wanted is not None and wanted not in names:
        raise TeacherError(f"{path} has no output {wanted}; it has {', '.join(names)}")
    if wanted is None and len(names) > 1:
        raise TeacherError(
            f"{path} has {len(names)} outputs ({', '.join(names)}); pick one with --output-name"
        )
    return wanted or names[0]


def _static(dimension: int | str | None) -> int | None:
    """Return a dimension that the file fixes; None where it is dynamic."""
    return dimension if isinstance(dimension, int) and dimension > 0 else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
