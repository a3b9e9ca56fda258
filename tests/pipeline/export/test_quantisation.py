"""int8: what of a student is quantised, and how."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.export import quantisation
from pipeline.export.quantisation import quantise
from pipeline.export.runtime import open_session
from pipeline.export.tracing import trace_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Small(torch.nn.Module):
    """A convolution whose channels differ a hundredfold, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.linear = torch.nn.Linear(8, 4)
        with torch.no_grad():
            self.conv.weight[0] *= 100

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        features = self.conv(crops.float().permute(0, 3, 1, 2) / 255).relu()
        return self.linear(features[:, 1:].mean((2, 3)).repeat(1, 2)[:, :8])


CROPS = np.random.default_rng(0).integers(0, 256, (20, 16, 12, 3), np.uint8)


@pytest.fixture(scope="module")
def small() -> Small:
    return Small().eval()


@pytest.fixture(scope="module")
def models(small: Small) -> tuple[bytes, bytes]:
    plain = trace_onnx(small, torch.from_numpy(CROPS[:2]), "crops", ["found"])
    return plain, quantise(plain, CROPS, 99.99, None)


def test_weights_are_int8_with_a_scale_per_channel(models: tuple[bytes, bytes]) -> None:
    graph = onnx.load_from_string(models[1]).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights = {name: t for name, t in tensors.items() if t.data_type == onnx.TensorProto.INT8}
    shapes = sorted(tuple(t.dims) for t in weights.values() if len(t.dims) > 1)
    assert shapes == [(8, 3, 3, 3), (8, 4)] or shapes == [(4, 8), (8, 3, 3, 3)]
    scales = [
        tensors[node.input[1]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
        if len(weights[node.input[0]].dims) > 1
    ]
    assert sorted(tuple(scale.dims) for scale in scales) == [(4,), (8,)]
    activations = {node.op_type for node in graph.node}
    assert "QuantizeLinear" in activations


def test_int8_is_near_at_any_batch(small: Small, models: tuple[bytes, bytes]) -> None:
    with torch.inference_mode():
        expected = small(torch.from_numpy(CROPS)).numpy()
    session = open_session(models[1])
    for count in (1, 20):
        (found,) = session.run(None, {"crops": CROPS[:count]})
        assert np.abs(found - expected[:count]).max() < 0.05 * np.ptp(expected)
    assert not np.array_equal(found, expected)


def test_a_fixed_batch_is_calibrated_in_batches_of_its_size(small: Small) -> None:
    plain = trace_onnx(small, torch.from_numpy(CROPS[:4]), "crops", ["found"], is_dynamic=False)
    session = open_session(quantise(plain, CROPS[:2], 99.99, 4))
    (found,) = session.run(None, {"crops": CROPS[:4]})
    assert found.shape == (4, 4)


def test_every_crop_is_read_once_in_ranges_of_one_size() -> None:
    batches = quantisation._Batches(CROPS[:16], 1)
    assert (len(batches), batches.stride) == (16, 8)
    read: list[Any] = []
    for start in range(0, len(batches), batches.stride):
        batches.set_range(start, start + batches.stride)
        while (batch := batches.get_next()) is not None:
            read.append(batch["crops"])
    np.testing.assert_array_equal(np.concatenate(read), CROPS[:16])
