"""Laws of ONNX teachers: any heatmap model runs, and what is none is refused in one line."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import TeacherError
from pipeline.machine import available_cores
from pipeline.settings import TeacherSettings
from pipeline.teachers import Teacher, open_teacher

WEIGHTS = np.random.default_rng(1).normal(0, 0.1, (5, 3, 4, 4)).astype(np.float32)
Shape = Sequence[int | str]


def write_model(
    path: Path,
    image_shape: Shape = ("batch", 3, 64, 48),
    *,
    outputs: tuple[str, ...] = ("heatmaps",),
    also: Sequence[onnx.NodeProto] = (),
    weights: NDArray[np.float32] = WEIGHTS,
    external_data: str | None = None,
    more_inputs: tuple[str, ...] = (),
) -> Path:
    """Write a convolution of stride 4 that gives 5 maps; ``also`` are nodes that follow it."""
    nodes = [helper.make_node("Conv", ["image", "w"], ["heatmaps"], strides=[4, 4])]
    graph = helper.make_graph(
        [*nodes, *also],
        "teacher",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, image_shape)
            for name in ("image", *more_inputs)
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if external_data is None:
        onnx.save(model, str(path))
    else:
        onnx.save(
            model, str(path), save_as_external_data=True, location=external_data, size_threshold=0
        )
    return path


def convolve(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the model says of (B, 3, H, W) images."""
    patches = np.lib.stride_tricks.sliding_window_view(images, (4, 4), axis=(2, 3))
    return np.einsum("bcijyx,kcyx->bkij", patches[:, :, ::4, ::4], WEIGHTS.astype(np.float64))


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 64, 48, 3), np.uint8)


def opened(path: Path, **settings: Any) -> Teacher:
    return open_teacher(path, TeacherSettings(num_threads=1, **settings))


def test_the_model_states_its_sizes(tmp_path: Path) -> None:
    teacher = opened(write_model(tmp_path / "t.onnx"))
    assert teacher.input_size_hw == (64, 48)
    assert teacher.heatmap_size_hw == (16, 12)
    assert teacher.num_keypoints == 5
    assert teacher.frame == "msra"
    assert (teacher.network.kind, teacher.network.architecture) == ("onnx", "t.onnx")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 2.0), "channel_order": "bgr"},
        {"scale": 1.0, "mean": (100.0, 110.0, 120.0), "std": (50.0, 60.0, 70.0)},
    ],
)
def test_a_pass_equals_numpy_from_pixels_to_maps(
    tmp_path: Path, crops: NDArray[np.uint8], settings: dict[str, Any]
) -> None:
    teacher = opened(write_model(tmp_path / "t.onnx"), **settings)
    asked = teacher.settings
    pixels = crops[..., ::-1] if asked.channel_order == "bgr" else crops
    images = (pixels.astype(np.float64) * asked.scale - asked.mean) / asked.std
    expected = convolve(images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(teacher.predict_heatmaps(crops), expected, atol=1e-4)


def test_batched_equals_alone_equals_padded(tmp_path: Path, crops: NDArray[np.uint8]) -> None:
    """Padding, neighbours and place in the batch change nothing; at one size not one bit."""
    path = write_model(tmp_path / "t.onnx")
    teacher = opened(path, batch_size=2)
    batched = teacher.predict_heatmaps(crops)
    for row, crop in enumerate(crops):
        np.testing.assert_array_equal(teacher.predict_heatmaps(crop[None])[0], batched[row])
    unpadded = opened(path, batch_size=5).predict_heatmaps(crops)
    np.testing.assert_allclose(batched, unpadded, atol=1e-5)


def test_a_fixed_batch_runs_in_that_batch(tmp_path: Path, crops: NDArray[np.uint8]) -> None:
    fixed = opened(write_model(tmp_path / "fixed.onnx", (2, 3, 64, 48)), batch_size=32)
    assert fixed.settings.batch_size == 2
    dynamic = opened(write_model(tmp_path / "dynamic.onnx"))
    np.testing.assert_allclose(
        fixed.predict_heatmaps(crops),
        dynamic.predict_heatmaps(crops),
        atol=1e-5,
    )


def test_a_dynamic_size_needs_the_option(tmp_path: Path, crops: NDArray[np.uint8]) -> None:
    path = write_model(tmp_path / "t.onnx", ("batch", 3, "height", "width"))
    with pytest.raises(TeacherError, match=r"takes any height and width; .*--input-size 256x192"):
        opened(path)
    teacher = opened(path, input_size_hw=(32, 24))
    assert (teacher.input_size_hw, teacher.heatmap_size_hw) == ((32, 24), (8, 6))
    assert teacher.predict_heatmaps(crops[:, :32, :24]).shape == (5, 5, 8, 6)


def test_a_size_that_contradicts_the_model_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "t.onnx")
    with pytest.raises(
        TeacherError, match=r"takes 64x48 .*, but --input-size is 32x24; leave the option out"
    ):
        opened(path, input_size_hw=(32, 24))
    assert opened(path, input_size_hw=(64, 48)).input_size_hw == (64, 48)


def test_of_several_outputs_one_is_picked(tmp_path: Path, crops: NDArray[np.uint8]) -> None:
    halved = helper.make_node("Sigmoid", ["heatmaps"], ["heat"])
    path = write_model(tmp_path / "t.onnx", outputs=("heatmaps", "heat"), also=[halved])
    with pytest.raises(
        TeacherError, match=r"2 outputs \(heatmaps, heat\); pick one with --output-name"
    ):
        opened(path)
    with pytest.raises(
        TeacherError,
        match=r"has no output maps; it has heatmaps, heat: pick one of them with --out",
    ):
        opened(path, output_name="maps")
    logits = opened(path, output_name="heatmaps")
    heat = opened(path, output_name="heat")
    np.testing.assert_allclose(
        heat.predict_heatmaps(crops),
        1 / (1 + np.exp(-logits.predict_heatmaps(crops))),
        atol=1e-5,
    )
    assert heat.identity() == {**logits.identity(), "output_name": "heat"}


def test_an_output_that_is_no_stack_of_maps_is_refused(tmp_path: Path) -> None:
    flat = helper.make_node("Flatten", ["heatmaps"], ["flat"])
    path = write_model(tmp_path / "t.onnx", outputs=("flat",), also=[flat])
    with pytest.raises(TeacherError, match=r"output flat .* has shape \(1, 960\); expected heatma"):
        opened(path)


@pytest.mark.parametrize("shape", [(1, 64, 48, 3), ("n", "h", "w", 3), ("n", 64, 48, 3)])
def test_a_model_with_its_channels_last_is_refused(tmp_path: Path, shape: Shape) -> None:
    last = helper.make_node("Identity", ["heatmaps"], ["maps"])
    path = write_model(tmp_path / "t.onnx", ("b", 3, "h", "w"), also=[last], outputs=("maps",))
    model = onnx.load(str(path))
    model.graph.node[0].input[0] = "first"
    transpose = helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2])
    model.graph.node.insert(0, transpose)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))
    onnx.save(model, str(path))
    with pytest.raises(
        TeacherError, match=r"expected \(batch, 3, height, width\); export .* channels first"
    ):
        opened(path, input_size_hw=(64, 48))


def test_an_input_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "t.onnx", ("batch", 4, 64, 48), weights=np.zeros((5, 4, 4, 4), np.float32))  # fmt: skip  # noqa: E501
    with pytest.raises(
        TeacherError, match=r"has shape \['batch', 4, 64, 48\]; expected \(batch, 3"
    ):
        opened(path)


def test_a_model_with_two_inputs_is_refused(tmp_path: Path) -> None:
    both = helper.make_node("Add", ["image", "mask"], ["sum"])
    path = write_model(tmp_path / "t.onnx", more_inputs=("mask",), also=[both])
    with pytest.raises(TeacherError, match=r"has 2 inputs \(image, mask\); expected one"):
        opened(path)


def test_a_model_that_cannot_run_is_refused(tmp_path: Path) -> None:
    """A fault that only shows on running: the maps do not fit a reshape."""
    shape = numpy_helper.from_array(np.array([1, 7, 7, 7]), "shape")
    constant = helper.make_node("Constant", [], ["shape"], value=shape)
    reshape = helper.make_node("Reshape", ["heatmaps", "shape"], ["maps"])
    path = write_model(
        tmp_path / "t.onnx", ("b", 3, "h", "w"), outputs=("maps",), also=[constant, reshape]
    )
    with pytest.raises(TeacherError, match=r"cannot run on a \(1, 3, 64, 48\) float32 input: "):
        opened(path, input_size_hw=(64, 48))


@pytest.mark.parametrize("content", [b"", b"this is no protocol buffer", b"\x08\x07"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.onnx"
    path.write_bytes(content)
    with pytest.raises(TeacherError, match=r"t\.onnx") as refusal:
        opened(path)
    assert "\n" not in str(refusal.value)
    assert "is no ONNX model" in str(refusal.value) or "cannot load" in str(refusal.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"t\.onnx does not exist"):
        opened(tmp_path / "t.onnx")


def test_the_sha256_covers_the_external_data(tmp_path: Path, crops: NDArray[np.uint8]) -> None:
    """The model's file itself stays the same, byte for byte."""
    path = write_model(tmp_path / "t.onnx", external_data="weights.bin")
    before, model_file = opened(path), path.read_bytes()
    changed = bytearray((tmp_path / "weights.bin").read_bytes())
    changed[3] ^= 1
    (tmp_path / "weights.bin").write_bytes(changed)
    after = opened(path)
    assert path.read_bytes() == model_file
    assert before.network.sha256 != after.network.sha256
    assert not np.array_equal(before.predict_heatmaps(crops), after.predict_heatmaps(crops))


def test_external_data_of_a_constant_counts_too(tmp_path: Path) -> None:
    """A tensor need not be an initializer to lie in another file."""
    gain = numpy_helper.from_array(np.full(1, 2, np.float32), "gain")
    constant = helper.make_node("Constant", [], ["gain"], value=gain)
    scaled = helper.make_node("Mul", ["heatmaps", "gain"], ["maps"])
    path = write_model(tmp_path / "t.onnx", outputs=("maps",), also=[constant, scaled])
    model = onnx.load(str(path))
    onnx.save(
        model, str(path), save_as_external_data=True, location="all.bin", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    (tmp_path / "all.bin").rename(tmp_path / "elsewhere.bin")
    with pytest.raises(TeacherError, match=r"keeps weights in all\.bin, which is not beside it"):
        opened(path)


def test_missing_external_data_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "t.onnx", external_data="weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(
        TeacherError, match=r"keeps weights in weights\.bin, which is not beside it; put it there"
    ):
        opened(path)


def test_the_sha256_changes_with_the_model(tmp_path: Path) -> None:
    weights = WEIGHTS.copy()
    weights[0, 0, 0, 0] = np.nextafter(weights[0, 0, 0, 0], np.float32(1))
    one = opened(write_model(tmp_path / "one.onnx"))
    same = opened(write_model(tmp_path / "same.onnx"))
    other = opened(write_model(tmp_path / "other.onnx", weights=weights))
    assert one.network.sha256 == same.network.sha256 != other.network.sha256


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_extra_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    path = write_model(tmp_path / "t.onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        TeacherError, match=rf"needs {package}, which is not installed; install the extra onnx"
    ):
        opened(path)


def test_the_recipe_says_how_the_session_computes(tmp_path: Path) -> None:
    recipe = opened(write_model(tmp_path / "t.onnx")).execution_recipe()
    assert recipe["library"] == "onnxruntime"
    assert recipe["providers"] == ["CPUExecutionProvider"]
    assert recipe["num_threads"] == 1
    assert (recipe["tf32"], recipe["deterministic"]) == (False, True)


def test_threads_left_open_are_recorded_as_the_number_they_come_to(tmp_path: Path) -> None:
    path = write_model(tmp_path / "t.onnx")
    recipe = open_teacher(path, TeacherSettings()).execution_recipe()
    assert recipe["num_threads"] == available_cores()
