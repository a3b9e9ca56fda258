"""Where teachers run: providers of onnxruntime, one GPU for each worker, both passes in a batch.

No GPU is needed: what would run on one is chosen by functions of names and numbers, and computed
here on the CPU.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import stages
from pipeline.caching.cluster_worker import device_of_worker
from pipeline.caching.inputs import _as_begun
from pipeline.errors import ConfigError, TeacherError
from pipeline.settings import TeacherSettings
from pipeline.teachers import Teacher, open_teacher
from pipeline.teachers.onnx_device import (
    CPU,
    CUDA,
    BoundSession,
    execution_providers,
    require_device,
)
from pipeline.teachers.onnx_network import open_session
from pipeline.teachers.opening import recorded_device
from tests.support.onnx_teacher import write_onnx_teacher

DEMO_TEACHER = Path(next(iter(stages.__path__))) / "demo_teacher.safetensors"


@pytest.mark.parametrize(
    ("device", "available", "expected", "number"),
    [
        ("auto", [CPU], [CPU], None),
        ("auto", [CUDA, CPU], [CUDA, CPU], None),
        ("cpu", [CUDA, CPU], [CPU], None),
        ("cuda", [CUDA, CPU], [CUDA, CPU], None),
        ("cuda:3", [CUDA, CPU], [CUDA, CPU], "3"),
    ],
)
def test_an_onnx_teacher_takes_cuda_where_it_may_and_can(
    device: str, available: list[str], expected: list[str], number: str | None
) -> None:
    providers = execution_providers(device, available)
    assert [name for name, _ in providers] == expected
    assert dict(providers).get(CUDA, {}).get("device_id") == number


def test_products_on_a_gpu_are_those_of_float32() -> None:
    ((_, options), _) = execution_providers("auto", [CUDA, CPU])
    assert options["use_tf32"] == "0"


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("mps", "device is mps, but ONNX teachers run on cpu or cuda; use cpu or auto"),
        ("cuda:1", r"device is cuda:1, but the installed onnxruntime has no CUDA.*onnxruntime-gpu"),
    ],
)
def test_a_device_that_onnxruntime_lacks_is_refused(device: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        execution_providers(device, [CPU])


def test_a_session_that_fell_back_to_the_cpu_is_refused_where_a_gpu_was_named() -> None:
    with pytest.raises(ConfigError, match="device is cuda, but onnxruntime cannot start CUDA"):
        require_device("cuda", [CPU])
    require_device("auto", [CPU])
    require_device("cuda", [CUDA, CPU])


def test_a_bound_session_gives_the_bits_of_a_plain_run(tmp_path: Path) -> None:
    """Bound memory is kept from batch to batch, and made anew for a batch of another size."""
    session = open_session(write_onnx_teacher(tmp_path / "teacher.onnx"), 1, "cpu")
    bound = BoundSession(session, "image", ["heatmaps"], "cpu", 0)
    random = np.random.default_rng(0)
    for size in (2, 2, 3):
        images = random.normal(size=(size, 3, 256, 192)).astype(np.float32)
        given = images.copy()
        np.testing.assert_array_equal(bound(images), session.run(None, {"image": images}))
        np.testing.assert_array_equal(images, given)


@pytest.mark.parametrize(
    ("device", "number", "num_gpus", "expected"),
    [
        ("auto", 0, 4, "cuda:0"),
        ("auto", 5, 4, "cuda:1"),
        ("cuda", 3, 4, "cuda:3"),
        ("auto", 1, 1, "auto"),  # one GPU, or none: all workers share it
        ("auto", 1, 0, "auto"),
        ("cpu", 1, 4, "cpu"),
        ("cuda:2", 1, 4, "cuda:2"),
        ("auto", None, 4, "auto"),  # the cluster deals the GPUs out
    ],
)
def test_each_worker_of_a_machine_has_a_gpu_of_its_own(
    device: str, number: int | None, num_gpus: int, expected: str
) -> None:
    assert device_of_worker(device, number, num_gpus) == expected


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"library": "torch", "device": "cpu"}, "cpu"),
        ({"library": "torch", "device": "cuda"}, "auto"),
        ({"library": "onnxruntime", "providers": [CPU]}, "cpu"),
        ({"library": "onnxruntime", "providers": [CUDA, CPU]}, "auto"),
        ({}, "auto"),
    ],
)
def test_a_store_goes_on_where_it_was_begun_unless_a_device_is_given(
    recipe: dict[str, Any], expected: str
) -> None:
    assert recorded_device(recipe) == expected
    assert _as_begun(TeacherSettings(), recipe).device == expected
    assert _as_begun(TeacherSettings(device="cuda"), recipe).device == "cuda"


class OnGpu:
    """A network of the CPU that says it computes on a GPU, and notes its batch sizes."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.num_threads = None
        self.batch_sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Any:
        self.batch_sizes.append(len(images))
        return self._network.forward(images, with_tokens)


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (3, 128, 96, 3), np.uint8)


def test_on_a_gpu_the_mirrored_crops_are_predicted_in_the_same_batch(
    crops: NDArray[np.uint8],
) -> None:
    settings = TeacherSettings(device="cpu", batch_size=2, flip_test=True)
    alone = open_teacher(DEMO_TEACHER, settings)
    network = OnGpu(alone.network)
    both = Teacher(network, alone.settings)
    flip = tuple(range(17))
    expected, found = (each.predict(crops, flip, with_tokens=True) for each in (alone, both))
    assert network.batch_sizes == [4, 4]
    np.testing.assert_allclose(found.heatmaps, expected.heatmaps, atol=1e-5)
    assert found.tokens is not None
    assert expected.tokens is not None
    for kind, tokens in expected.tokens.items():
        np.testing.assert_allclose(found.tokens[kind], tokens, atol=1e-4)


def test_targets_are_float32_unless_another_format_is_given_which_the_identity_then_names(
    crops: NDArray[np.uint8],
) -> None:
    usual = open_teacher(DEMO_TEACHER, TeacherSettings(device="cpu", batch_size=3))
    coarse = open_teacher(
        DEMO_TEACHER, TeacherSettings(device="cpu", batch_size=3, precision="bfloat16")
    )
    assert "precision" not in usual.identity()
    assert coarse.identity() == {**usual.identity(), "precision": "bfloat16"}
    one, other = (each.predict_heatmaps(crops) for each in (usual, coarse))
    assert one.dtype == other.dtype == np.float32
    difference = np.abs(one - other).max()
    assert 1e-4 < difference < 0.1


def test_an_onnx_teacher_has_the_numbers_of_its_file(tmp_path: Path) -> None:
    path = write_onnx_teacher(tmp_path / "teacher.onnx")
    with pytest.raises(TeacherError, match=r"precision is bfloat16, but .*teacher\.onnx computes"):
        open_teacher(path, TeacherSettings(precision="bfloat16"))


def test_a_gpu_that_torch_lacks_is_refused() -> None:
    number = torch.cuda.device_count()
    with pytest.raises(ConfigError, match=rf"device is cuda:{number}, but torch finds"):
        open_teacher(DEMO_TEACHER, TeacherSettings(device=f"cuda:{number}"))
