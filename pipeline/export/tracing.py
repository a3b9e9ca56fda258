"""A module of torch as an ONNX model."""

import io
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def trace_onnx(
    module: nn.Module,
    example: Tensor,
    input_name: str,
    output_names: Sequence[str] = (),
    *,
    is_dynamic: bool = True,
) -> bytes:
    """Return a module in evaluation mode as an ONNX model, weights inside.

    The exporter by tracing is used: torch's other one needs a further package.

    example: its one input; its first dimension is the batch.
    output_names: by default torch numbers the outputs.
    is_dynamic: the batch of inputs and outputs may have any size; else that of ``example``.
    """
    names = (input_name, *output_names)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age, and of checks of shapes
        torch.onnx.export(
            module,
            (example,),
            buffer,  # type: ignore[arg-type]  # the exporter by tracing takes a buffer
            input_names=[input_name],
            output_names=list(output_names),
            dynamic_axes={name: {0: "batch"} for name in names} if is_dynamic else {},
            dynamo=False,
        )
    return buffer.getvalue()
