"""Costs: an exported network does what it does in torch, and networks are timed in turns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.evaluation import inference_cost
from pipeline.evaluation.inference_cost import TimedNetwork, measure_costs
from pipeline.evaluation.onnx_models import count_onnx, export_onnx
from pipeline.evaluation.peak_memory import peak_bytes_of_onnx
from pipeline.models import build_network
from pipeline.models.cost import count_multiply_adds, count_parameters
from pipeline.models.pose_networks import PoseNetwork

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def student() -> PoseNetwork:
    torch.manual_seed(0)
    return build_network("distilpose-xs", 5).eval()


@pytest.fixture(scope="module")
def exported(student: PoseNetwork) -> bytes:
    return export_onnx(student)


def test_an_exported_network_predicts_the_same_at_every_batch_size(
    student: PoseNetwork, exported: bytes
) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    images = torch.rand(3, 3, *student.input_size_hw)
    with torch.inference_mode():
        expected = student(images)
    found = session.run(None, {"image": images.numpy()})
    np.testing.assert_allclose(found[0], expected.keypoints.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[1], expected.scores.numpy(), atol=1e-5)


def test_an_onnx_model_has_the_multiply_adds_of_its_network(
    student: PoseNetwork, exported: bytes
) -> None:
    """Parameters of folded batch norms are the only difference: below 1 %."""
    model = onnx.load_from_string(exported)
    parameters, products = count_onnx(model, student.input_size_hw)
    assert products == count_multiply_adds(student)
    assert parameters == pytest.approx(count_parameters(student), rel=0.01)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter by tracing
def test_of_a_fixed_batch_one_crops_share_is_counted(tmp_path: Path) -> None:
    """A convolution with groups, a transposed one and a linear layer, by hand."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3, bias=False),
        torch.nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1, bias=False),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 8 * 8, 5),
    )
    path = tmp_path / "model.onnx"
    torch.onnx.export(network, (torch.zeros(2, 3, 8, 8),), str(path), dynamo=False)
    parameters, products = count_onnx(onnx.load(str(path)), (8, 8))
    assert products.conv_linear == (6 * 16) * 9 + (6 * 16) * 4 * 16 + 256 * 5
    assert products.attention == 0
    assert parameters == 6 * 9 + 6 * 4 * 16 + 256 * 5 + 5


def test_networks_are_timed_in_turns_in_one_runtime(
    student: PoseNetwork, exported: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One network is a module, the other a file, as a student and an ONNX teacher are."""
    (tmp_path / "teacher.onnx").write_bytes(exported)
    monkeypatch.setattr(inference_cost, "export_onnx", lambda _: exported)
    monkeypatch.setattr(inference_cost, "peak_bytes_of_onnx", lambda *_: 7)
    monkeypatch.setattr(inference_cost, "LARGE_BATCH", 4)
    turns: list[tuple[Path, int]] = []
    open_call = inference_cost._onnx_call

    def recorded(file: Path, size_hw: tuple[int, int]) -> Any:
        call = open_call(file, size_hw)

        def run(images: Any) -> object:
            turns.append((file, len(images)))
            return call.run(images)

        return call._replace(run=run)

    monkeypatch.setattr(inference_cost, "_onnx_call", recorded)
    size = student.input_size_hw
    networks = {
        "student": TimedNetwork(student, size),
        "teacher": TimedNetwork(tmp_path / "teacher.onnx", size),
    }
    costs, notes = measure_costs(networks, {1: 3, 4: 1})
    assert notes == ()
    assert [batch for _, batch in turns] == [1] * 8 + [4] * 4
    assert len({file for file, _ in turns[0::2]}) == len({file for file, _ in turns[1::2]}) == 1
    for cost in costs.values():
        assert cost.runtime == "onnxruntime"
        assert 0 < cost.batch_1.minimum <= cost.batch_1.median
        assert cost.peak_bytes == 7
    assert costs["student"].num_multiply_adds == costs["teacher"].num_multiply_adds


def test_without_onnx_times_are_of_torch_and_it_is_said(
    student: PoseNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_cost, "has_onnx", lambda: False)
    monkeypatch.setattr(inference_cost, "LARGE_BATCH", 4)
    networks = {"student": TimedNetwork(student, student.input_size_hw)}
    costs, (note,) = measure_costs(networks, {1: 1, 4: 1})
    assert "times are of torch" in note
    assert (costs["student"].runtime, costs["student"].peak_bytes) == ("torch", None)


def test_peak_memory_is_that_of_another_process(
    exported: bytes, student: PoseNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "student.onnx"
    path.write_bytes(exported)
    peak = peak_bytes_of_onnx(path, 8, student.input_size_hw)
    if peak is None:
        pytest.skip("peak memory is read from /proc")
    assert len(exported) < peak < 500 << 20
