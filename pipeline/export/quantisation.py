"""int8: static quantisation of an exported student, per channel, calibrated on crops.

The operators that multiply (convolutions, linear layers, attention) compute in int8, between nodes
that quantise and dequantise (QDQ), as onnxruntime recommends. Both operands are signed: unsigned
activations saturate on x86 processors without VNNI, so that one file would predict otherwise there.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.export.student_file import CROPS

_OPERATORS = ["Conv", "Gemm", "MatMul"]
_CROPS_AT_ONCE = 8
"""Number of crops whose activations are in memory at a time."""


def quantise(
    model: bytes, crops: NDArray[np.uint8], percentile: float, batch_size: int | None
) -> bytes:
    """Return a float32 student in int8; its description stays that of ``model``.

    crops: (B, H, W, 3) uint8, RGB, on which the ranges of the activations are measured.
    percentile: share of the activations that lie within their range, in percent.
    batch_size: size of the only batch that the model takes; None: any.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = _Batches(crops, batch_size or 1)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, prepared, quantised = (Path(folder) / f"{step}.onnx" for step in range(3))
        plain.write_bytes(model)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantised),
            batches,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": percentile, "CalibStridedMinMax": batches.stride},
        )
        return quantised.read_bytes()


class _Batches:
    """The crops as onnxruntime's calibration reads them: a batch at a time, in equal ranges."""

    def __init__(self, crops: NDArray[np.uint8], batch_size: int) -> None:
        self.stride = max(1, _CROPS_AT_ONCE // batch_size)
        count = max(1, len(crops) // (batch_size * self.stride)) * self.stride
        # np.resize repeats the crops where there are fewer than a range.
        self._batches = np.resize(crops, (count, batch_size, *crops.shape[1:]))
        self._waiting: Iterator[NDArray[np.uint8]] = iter(())

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._waiting = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._waiting, None)
        return None if batch is None else {CROPS: batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what onnxruntime prints of its progress, and its warnings on a model's format."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
