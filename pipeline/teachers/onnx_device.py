"""The device of an ONNX teacher: onnxruntime's execution providers, and memory on a GPU.

https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

import importlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.settings import DeviceName

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def execution_providers(
    device: DeviceName, available: Sequence[str]
) -> list[tuple[str, dict[str, str]]]:
    """Return the providers of a session with their options, the preferred one first.

    device: ``auto`` takes CUDA where onnxruntime was built with it, and the CPU where that finds no
        GPU.
    available: the providers that onnxruntime was built with.

    Raises:
        ConfigError: the device is none of onnxruntime's here.
    """
    if device == "mps":
        raise ConfigError("device is mps, but ONNX teachers run on cpu or cuda; use cpu or auto")
    if device == "cpu" or (device == "auto" and CUDA not in available):
        return [(CPU, {})]
    if CUDA not in available:
        raise ConfigError(
            f"device is {device}, but the installed onnxruntime has no {CUDA}; install "
            "onnxruntime-gpu in its place, or use cpu or auto"
        )
    # An exhaustive search picks the algorithm that happens to be fastest today.
    options = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    if number := device.partition(":")[2]:
        options["device_id"] = number
    return [(CUDA, options), (CPU, {})]


def require_device(device: DeviceName, used: Sequence[str]) -> None:
    """Refuse a session that fell back to the CPU although a GPU was named.

    used: the providers of the session.

    Raises:
        ConfigError: it did.
    """
    if device.startswith("cuda") and used[0] != CUDA:
        raise ConfigError(
            f"device is {device}, but onnxruntime cannot start CUDA there; check the driver, the "
            "number of the GPU and the versions of CUDA and cuDNN, or use cpu or auto"
        )


class BoundSession:
    """Runs a session on crops that are copied into memory of the device which is kept.

    Batches have one size, so that it is allocated once in each thread; the outputs come back in
    one copy each.
    """

    def __init__(
        self, session: Any, input_name: str, output_names: Sequence[str], device: str, number: int
    ) -> None:
        self._session = session
        self._input_name, self._output_names = input_name, output_names
        self._device, self._number = device, number
        self._of_thread = threading.local()
        self._values: Any = importlib.import_module("onnxruntime").OrtValue

    def __call__(self, images: NDArray[np.float32]) -> list[Any]:
        """Return the outputs for (B, 3, H, W) crops."""
        images = np.ascontiguousarray(images)
        value = getattr(self._of_thread, "value", None)
        if value is None or tuple(value.shape()) != images.shape:
            value = self._values.ortvalue_from_shape_and_type(
                images.shape, np.float32, self._device, self._number
            )
            self._of_thread.value = value
        value.update_inplace(images)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input_name, value)
        for name in self._output_names:
            binding.bind_output(name, self._device, self._number)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())
