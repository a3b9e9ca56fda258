"""ONNX heatmap models, run by onnxruntime: one image input, one (B, K, Hh, Wh) output.

Or two outputs of three dimensions, the distributions along x and y of SimCC and RTMPose.
"""

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TeacherError
from pipeline.frames.geometry import SizeHW
from pipeline.machine import available_cores
from pipeline.settings import DeviceName, HeatmapFrame, TeacherSettings
from pipeline.teachers.network import Prediction
from pipeline.teachers.onnx_device import CPU, BoundSession, execution_providers, require_device
from pipeline.teachers.simcc import SimccGrid, axes_of
from pipeline.wording import one_line


class OnnxNetwork:
    """An ONNX file as a heatmap network; sizes come from the file where it states them."""

    kind = "onnx"
    keypoint_names: tuple[str, ...] | None = None
    heatmap_frame: HeatmapFrame = "msra"
    token_shape: tuple[int, SizeHW] | None = None

    def __init__(self, path: Path, settings: TeacherSettings) -> None:
        self.architecture = path.name
        self.sha256 = sha256_of_model(path)
        self._session_threads = settings.num_threads or available_cores()
        if settings.precision != "float32":
            raise TeacherError(
                f"precision is {settings.precision}, but {path} computes in the numbers of its own "
                "file; leave --precision out, or give a file in that format"
            )
        self._session = open_session(path, self._session_threads, settings.device)
        is_on_cpu = self._session.get_providers()[0] == CPU
        self.num_threads = self._session_threads if is_on_cpu else None
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise TeacherError(
                f"{path} has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); expected "
                "one, the crops"
            )
        image = inputs[0]
        self._input_name: str = image.name
        self.fixed_batch_size = _static(image.shape[0])
        self.input_size_hw = _input_size(path, image.shape, settings.input_size_hw)
        outputs = self._session.get_outputs()
        names = [output.name for output in outputs]
        self._grid: SimccGrid | None = None
        if settings.output_name is None and [len(output.shape) for output in outputs] == [3, 3]:
            self._output_names, self._grid = self._simcc(path, names)
            self.heatmap_frame = "half-pixel"
        else:
            self._output_names = [_output_name(path, names, settings.output_name)]
        gpu = None if is_on_cpu else settings.device.partition(":")[2] or "0"
        self._run: Callable[[NDArray[np.float32]], list[Any]] = (
            self._run_on_cpu
            if gpu is None
            else BoundSession(self._session, self._input_name, self._output_names, "cuda", int(gpu))
        )
        self.num_keypoints, self.heatmap_size_hw = self._output_size(path)

    def _run_on_cpu(self, images: NDArray[np.float32]) -> list[Any]:
        return list(self._session.run(self._output_names, {self._input_name: images}))

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        """Predict raw heatmaps of (B, 3, H, W) normalised crops; there are no tokens."""
        arrays = [np.asarray(output, np.float32) for output in self._run(images)]
        return Prediction(arrays[0] if self._grid is None else self._grid.heatmaps(*arrays))

    def execution(self) -> dict[str, Any]:
        """Return the settings that change the last bits of heatmaps, as JSON values."""
        return {
            "library": "onnxruntime",
            "providers": list(self._session.get_providers()),
            "num_threads": self._session_threads,
            "graph_optimization": "all",
            "deterministic": True,
            "tf32": False,
        }

    def _output_size(self, path: Path) -> tuple[int, SizeHW]:
        """Find K and the heatmap size by one run, as they are often dynamic in the file."""
        shape = self._tried(path, self._output_names)[0].shape
        if self._grid is not None:
            return shape[1], self._grid.size_hw
        if len(shape) != 4:
            raise TeacherError(
                f"output {self._output_names[0]} of {path} has shape {shape}; expected heatmaps "
                "(batch, keypoints, height, width); pick another with --output-name"
            )
        return shape[1], (shape[2], shape[3])

    def _simcc(self, path: Path, names: list[str]) -> tuple[list[str], SimccGrid]:
        """Return the names of the outputs along x and y, and the grid that they are brought to."""
        bins = [output.shape[2] for output in self._tried(path, names)]
        x, y = axes_of(names, bins, self.input_size_hw)
        grid = SimccGrid.of(self.input_size_hw, (bins[x], bins[y]), str(path))
        return [names[x], names[y]], grid

    def _tried(self, path: Path, names: list[str]) -> list[NDArray[np.float32]]:
        """Return outputs for black crops."""
        images = np.zeros((self.fixed_batch_size or 1, 3, *self.input_size_hw), np.float32)
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(
                names, {self._input_name: images}
            )
        except Exception as error:
            raise TeacherError(
                f"{path} cannot run on a {images.shape} float32 input: {one_line(error)}"
            ) from error
        return outputs


def sha256_of_model(path: Path) -> str:
    """Return the sha256 over an ONNX file and the external data files it names, in name order.

    Raises:
        TeacherError: it is no ONNX model, or an external data file is not beside it.
    """
    onnx = _import_extra("onnx", path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise TeacherError(f"{path} is no ONNX model: {one_line(error)}") from error
    digest = hashlib.sha256(path.read_bytes())
    for name in sorted(_external_names(model)):
        external = path.parent / name
        if not external.is_file():
            raise TeacherError(
                f"{path} keeps weights in {name}, which is not beside it; put it there"
            )
        digest.update(external.read_bytes())
    return digest.hexdigest()


def _external_names(message: Any) -> set[str]:
    """Collect the external files of all tensors, wherever in the model they stand."""
    names: set[str] = set()
    for field, value in message.ListFields():
        if field.name == "external_data":
            names |= {entry.value for entry in value if entry.key == "location"}
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                names |= _external_names(part)
    return names


def _import_extra(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TeacherError(
            f"{path} needs {name}, which is not installed; install the extra onnx (uv sync "
            "--extra onnx)"
        ) from error


def open_session(path: Path, num_threads: int, device: DeviceName) -> Any:
    """Open an ONNX file in onnxruntime on a device.

    Raises:
        TeacherError: onnxruntime is not installed, or cannot load the file.
        ConfigError: it cannot use the device.
    """
    onnxruntime = _import_extra("onnxruntime", path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # A thread that spins while it waits takes the core from those that decode the next crops.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = num_threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    providers = execution_providers(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise TeacherError(f"onnxruntime cannot load {path}: {one_line(error)}") from error
    require_device(device, session.get_providers())
    return session


def _input_size(path: Path, shape: list[Any], given: SizeHW | None) -> SizeHW:
    """Return the crop size, from the model or else from the settings."""
    is_channels_last = len(shape) == 4 and _static(shape[1]) != 3 and _static(shape[3]) == 3
    if len(shape) != 4 or _static(shape[1]) not in (3, None) or is_channels_last:
        raise TeacherError(
            f"the input of {path} has shape {shape}; expected (batch, 3, height, width)"
            + ("; export the model with its channels first" if is_channels_last else "")
        )
    height, width = _static(shape[2]), _static(shape[3])
    if height is None or width is None:
        if given is None:
            raise TeacherError(
                f"{path} takes any height and width; give them with --input-size, for example "
                "--input-size 256x192 (height x width)"
            )
        return given
    if given is not None and given != (height, width):
        raise TeacherError(
            f"{path} takes {height}x{width} (height x width), but --input-size is "
            f"{given[0]}x{given[1]}; leave the option out"
        )
    return height, width


def _output_name(path: Path, names: list[str], wanted: str | None) -> str:
    if wanted is not None and wanted not in names:
        raise TeacherError(
            f"{path} has no output {wanted}; it has {', '.join(names)}: pick one of them with "
            "--output-name"
        )
    if wanted is None and len(names) > 1:
        raise TeacherError(
            f"{path} has {len(names)} outputs ({', '.join(names)}); pick one with --output-name"
        )
    return wanted or names[0]


def _static(dimension: int | str | None) -> int | None:
    """Return a dimension that the file fixes; None where it is dynamic."""
    return dimension if isinstance(dimension, int) and dimension > 0 else None
