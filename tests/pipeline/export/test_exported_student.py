"""An exported student predicts what its network does, from pixels, and describes itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.coco.poses import ScoreRule
from pipeline.errors import ExportError
from pipeline.export.parity import (
    CHECKED_BATCHES,
    LARGEST_DIFFERENCE,
    generated_crops,
    largest_difference,
    require_parity,
)
from pipeline.export.student_file import ExportedStudent, StudentFile
from pipeline.export.student_graph import export_student
from pipeline.models.pose_networks import Student, build_student
from pipeline.runs.checkpoints import CheckpointInfo

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE_HW = (128, 96)
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
INFO = CheckpointInfo(
    kind="student",
    architecture="distilpose-xxs",
    input_size_hw=SIZE_HW,
    padding=1.1,
    keypoint_names=("nose", "left_hand", "right_hand"),
    edges=((0, 1), (0, 2)),
    flip_indices=(0, 2, 1),
    sigmas=(0.1, 0.2, 0.2),
    upper_body=(),
    lower_body=(),
    rgb_mean=MEAN,
    rgb_std=STD,
    score_rule="learned",
    scored_keypoints=(0, 2),
    store_fingerprint="f" * 64,
    seed=0,
    epoch=3,
    step=30,
)


def described(**changes: Any) -> ExportedStudent:
    facts: dict[str, Any] = {
        "network": INFO,
        "precision": "float32",
        "batch_size": None,
        "weights_sha256": "a" * 64,
        "num_parameters": 1,
        "num_multiply_adds": 2,
    }
    return ExportedStudent(**{**facts, **changes})


@pytest.fixture(scope="module")
def network() -> Student:
    """A student whose outputs depend on its input: a fresh head's would hardly."""
    torch.manual_seed(0)
    network = build_student("distilpose-xxs", 3).eval()
    with torch.no_grad():
        network.head.linear.weight.mul_(20)
    return network


@pytest.fixture(scope="module")
def model(network: Student) -> bytes:
    return export_student(network, described())


@pytest.fixture(scope="module")
def crops() -> Any:
    return np.random.default_rng(1).integers(0, 256, (5, *SIZE_HW, 3), np.uint8)


def expected_of(network: Student, crops: Any) -> tuple[Any, Any, Any]:
    """The network's outputs for pixels that are normalised and decoded here."""
    normalised = (crops / 255 - np.array(MEAN)) / np.array(STD)
    images = torch.from_numpy(np.moveaxis(normalised, -1, 1)).float()
    with torch.inference_mode():
        output = network(images)
    points = output.keypoints.numpy() * [96, 128]
    return points, output.scores.numpy(), output.sigmas.numpy()


@pytest.mark.parametrize("count", [1, 5])
def test_pixels_give_keypoints_in_crop_pixels_at_any_batch(
    network: Student, model: bytes, crops: Any, count: int
) -> None:
    found = StudentFile(model).predict(crops[:count])
    expected = expected_of(network, crops[:count])
    assert np.ptp(expected[0]) > 10
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_fixed_batch_takes_any_number_of_crops_in_parts(network: Student, crops: Any) -> None:
    student = StudentFile(export_student(network, described(batch_size=2)))
    assert student.fixed_batch_size == 2
    found, expected = student.predict(crops), expected_of(network, crops)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_float16_halves_the_file_and_leaves_the_network_as_it_is(
    network: Student, model: bytes, crops: Any
) -> None:
    halved = export_student(network, described(precision="float16"))
    assert len(halved) < 0.56 * len(model)
    student = StudentFile(halved)
    assert student.description.precision == "float16"
    found = student.predict(crops)
    np.testing.assert_allclose(found.keypoints, expected_of(network, crops)[0], atol=0.5)
    assert 0 < largest_difference(network, student, crops) < LARGEST_DIFFERENCE["float16"]
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not network.head._forward_pre_hooks


def test_the_head_and_the_decoding_of_float16_are_float32(network: Student) -> None:
    """A coordinate of a float16 sigmoid has steps of 96 / 2048 pixels and more."""
    proto = onnx.load_from_string(export_student(network, described(precision="float16")))
    types = {t.name: t.data_type for t in proto.graph.initializer}
    of_head = {kind for name, kind in types.items() if "network.head" in name}
    assert of_head == {onnx.TensorProto.FLOAT}
    assert onnx.TensorProto.FLOAT16 in types.values()


def test_the_file_describes_itself_to_any_program(model: bytes) -> None:
    proto = onnx.load_from_string(model)
    (entry,) = proto.metadata_props
    assert entry.key == "distil"
    stated = json.loads(entry.value)
    network = stated["network"]
    assert stated["precision"] == "float32"
    assert network["keypoint_names"] == ["nose", "left_hand", "right_hand"]
    assert network["flip_indices"] == [0, 2, 1]
    assert network["edges"] == [[0, 1], [0, 2]]
    assert (network["rgb_mean"], network["rgb_std"]) == (list(MEAN), list(STD))
    assert (network["padding"], network["input_size_hw"]) == (1.1, [128, 96])
    assert network["store_fingerprint"] == "f" * 64
    described_again = StudentFile(model).description
    assert described_again == described()
    assert described_again.network.rule == ScoreRule(scored_keypoints=(0, 2))
    assert [o.name for o in proto.graph.output] == ["keypoints", "scores", "sigmas"]
    assert all(value.doc_string for value in (*proto.graph.input, *proto.graph.output))


def test_parity_is_of_batches_of_1_and_64(network: Student, model: bytes) -> None:
    assert CHECKED_BATCHES == (1, 64)
    crops = generated_crops(SIZE_HW)
    assert crops.shape == (64, *SIZE_HW, 3)
    assert np.ptp(crops) == 255
    student = StudentFile(model)
    difference = largest_difference(network, student, crops)
    assert difference <= LARGEST_DIFFERENCE["float32"] == 1e-4
    require_parity(student, difference)


@pytest.mark.parametrize("changed", ["keypoints", "scores", "sigmas"])
def test_a_difference_of_any_output_is_refused(
    network: Student, model: bytes, crops: Any, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keypoints are compared in crops: 0.0192 pixels of 96 are 2e-4."""
    monkeypatch.setattr("pipeline.export.parity.CHECKED_BATCHES", (1, 2))
    student = StudentFile(model)
    plain = StudentFile.predict
    shift = 0.0192 if changed == "keypoints" else 2e-4

    def shifted(self: StudentFile, crops: Any) -> Any:
        found = plain(self, crops)
        array = getattr(found, changed).copy()
        array[-1] += shift if len(crops) == 2 else 0  # at the second batch alone
        return found._replace(**{changed: array})

    monkeypatch.setattr(StudentFile, "predict", shifted)
    difference = largest_difference(network, student, crops)
    assert difference == pytest.approx(2e-4, rel=0.05)
    with pytest.raises(ExportError, match=r"float32 student is not the network.*at most 0\.0001"):
        require_parity(student, difference)


def test_a_value_that_is_not_finite_is_refused(
    network: Student, model: bytes, crops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.export.parity.CHECKED_BATCHES", (1,))
    student = StudentFile(model)
    nan = student.predict(crops[:1])
    nan.scores[:] = np.nan
    monkeypatch.setattr(StudentFile, "predict", lambda *_: nan)
    with pytest.raises(ExportError, match="differs by inf"):
        require_parity(student, largest_difference(network, student, crops))


def test_a_file_that_is_no_exported_student_is_refused(tmp_path: Path, model: bytes) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    with pytest.raises(ExportError, match=r"onnxruntime cannot load .*text\.onnx"):
        StudentFile(text)
    proto = onnx.load_from_string(model)
    del proto.metadata_props[:]
    with pytest.raises(ExportError, match="does not describe itself as a student"):
        StudentFile(proto.SerializeToString())
