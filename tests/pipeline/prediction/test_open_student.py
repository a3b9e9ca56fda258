"""A student is opened from run folder, weights or exported file, and predicts the same."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import RunFolderError
from pipeline.export.student_file import ExportedStudent
from pipeline.export.student_graph import export_student
from pipeline.models.pose_networks import Student
from pipeline.prediction.networks import open_student_at
from pipeline.runs.checkpoints import load_network
from pipeline.runs.run_folder import RunFolder
from tests.support.evaluation_sample import SIZE_HW, save_network


def test_a_run_folder_stands_for_its_best_weights(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.best_weights.parent.mkdir()
    weights = save_network(run.best_weights)
    of_folder = open_student_at(tmp_path, device="cpu")
    of_weights = open_student_at(weights, device="cpu")
    assert of_folder.path == of_weights.path == weights
    crops = np.random.default_rng(0).integers(0, 256, (2, *SIZE_HW, 3), np.uint8)
    np.testing.assert_array_equal(
        of_folder.estimator.estimate(crops).keypoints,
        of_weights.estimator.estimate(crops).keypoints,
    )


def test_what_holds_no_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="has no checkpoints"):
        open_student_at(tmp_path)
    teacher = save_network(tmp_path / "teacher.safetensors", "tokenpose-xs")
    with pytest.raises(RunFolderError, match="expected a student"):
        open_student_at(teacher)


def test_an_exported_student_predicts_as_its_weights_sigmas_too(tmp_path: Path) -> None:
    weights = save_network(tmp_path / "student.safetensors")
    network, info = load_network(weights)
    assert isinstance(network, Student)
    description = ExportedStudent(
        network=info, precision="float32", batch_size=None, weights_sha256="0" * 64,
        num_parameters=1, num_multiply_adds=1,
    )  # fmt: skip
    (tmp_path / "student.onnx").write_bytes(export_student(network, description))
    crops = np.random.default_rng(0).integers(0, 256, (3, *SIZE_HW, 3), np.uint8)
    exported = open_student_at(tmp_path / "student.onnx")
    plain = open_student_at(weights, device="cpu")
    assert exported.skeleton == plain.skeleton
    assert exported.rule == plain.rule
    found, expected = exported.estimator.estimate(crops), plain.estimator.estimate(crops)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert found.sigmas is not None
    assert expected.sigmas is not None
    np.testing.assert_allclose(found.sigmas, expected.sigmas, atol=1e-4)
