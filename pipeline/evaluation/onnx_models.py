"""Networks as ONNX models, so that all of them run in one runtime, and what such a model costs."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.export.tracing import trace_onnx
from pipeline.models.cost import MultiplyAdds
from pipeline.models.pose_networks import PoseNetwork

INPUT = "image"


class _Outputs(nn.Module):
    """A network whose outputs are tensors alone, without its tokens."""

    def __init__(self, network: PoseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output = self.network(images)
        return tuple(part for part in output if isinstance(part, Tensor))


def export_onnx(network: PoseNetwork) -> bytes:
    """Return a network as an ONNX model of any batch size; its input is normalised crops."""
    was_training = network.training
    device = next(network.parameters()).device
    images = torch.zeros(2, 3, *network.input_size_hw, device=device)
    model = trace_onnx(_Outputs(network).eval(), images, INPUT)
    network.train(was_training)
    return model


def count_onnx(model: Any, input_size_hw: tuple[int, int]) -> tuple[int, MultiplyAdds]:
    """Count the parameters of an ONNX model, and its multiply-adds for one crop, by running it.

    model: ``onnx.ModelProto`` with its weights. Of a fixed batch one crop's share is counted. Batch
    norms that were folded into convolutions are counted with them.
    """
    import onnx

    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer if t.data_type in floats}
    nodes = [node for node in model.graph.node if node.op_type in _PRODUCTS]
    wanted = {name for node in nodes for name in (*node.input[:2], node.output[0])}
    batch, shapes = _shapes(model, wanted - weights.keys(), input_size_hw)
    shapes |= weights
    conv_linear = attention = 0
    for node in nodes:
        first, second, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
        match node.op_type:
            case "Conv":  # weights (out, in / groups, kernel...)
                conv_linear += math.prod(out) * math.prod(second[1:])
            case "ConvTranspose":  # weights (in, out / groups, kernel...)
                conv_linear += math.prod(first) * math.prod(second[1:])
            case "Gemm":  # either weights (out, in) or (in, out)
                conv_linear += math.prod(out) * math.prod(second) // out[-1]
            case _:
                products = math.prod(out) * first[-1]
                has_weights = any(name in weights for name in node.input)
                conv_linear += products if has_weights else 0
                attention += 0 if has_weights else products
    return sum(map(math.prod, weights.values())), MultiplyAdds(
        conv_linear // batch, attention // batch
    )


_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def _shapes(
    model: Any, names: set[str], input_size_hw: tuple[int, int]
) -> tuple[int, dict[str, tuple[int, ...]]]:
    """Return the size of the batch, and the shapes of these tensors."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    initial = {tensor.name for tensor in fixed.graph.initializer}
    (image,) = (value for value in fixed.graph.input if value.name not in initial)
    dims = image.type.tensor_type.shape.dim
    batch = dims[0].dim_value or 1
    for dim, size in zip(dims, (batch, 3, *input_size_hw), strict=True):
        dim.dim_value = size
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    known = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes = {name: known[name] for name in names if all(known.get(name, (0,)))}
    return batch, shapes | _shapes_by_running(fixed, sorted(names - shapes.keys()), image.name)


def _shapes_by_running(model: Any, names: list[str], image: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes that do not follow from the graph: a model may compute them."""
    if not names:
        return {}
    import onnx
    import onnxruntime

    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    images = np.zeros(session.get_inputs()[0].shape, np.float32)
    found = session.run(names, {image: images})
    return {name: array.shape for name, array in zip(names, found, strict=True)}
