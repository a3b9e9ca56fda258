"""SimCC and RTMPose: a network that finds a bright dot must have its keypoint on the dot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import TeacherError
from pipeline.frames.geometry import crop_to_heatmap
from pipeline.settings import TeacherSettings
from pipeline.teachers import Teacher, open_teacher
from pipeline.teachers.simcc import SimccGrid, axes_of

SIZE_HW, CELLS_HW = (128, 96), (32, 24)
SIGMA = 4.9  # bins, that of RTMPose for crops of 256 x 192


def write_model(
    path: Path,
    ratio: float = 2,
    names: Sequence[str] = ("simcc_x", "simcc_y"),
    size_hw: tuple[int, int] = SIZE_HW,
    swapped: bool = False,
    batch: int | str = "n",
) -> Path:
    """Write a network whose outputs are Gaussians around the dot of each colour channel.

    It sums a channel over rows (or columns) and spreads pixel p over the bins around p * ratio.
    """
    height, width = size_hw
    spreads = {}
    for axis, length in (("x", width), ("y", height)):
        bins, pixels = np.arange(round(length * ratio)), np.arange(length)
        away = bins - ratio * pixels[:, None]
        spreads[axis] = np.exp(-(away**2) / (2 * SIGMA**2)).astype(np.float32)
    output_of = dict(zip(("x", "y"), names, strict=True))
    nodes = []
    for axis in "xy":
        nodes.append(helper.make_node("ReduceSum", ["image", f"axis_{axis}"], [f"sum_{axis}"],
                                      keepdims=0))  # fmt: skip
        nodes.append(helper.make_node("MatMul", [f"sum_{axis}", f"spread_{axis}"],
                                      [output_of[axis]]))  # fmt: skip
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 3, f"bins_{name}"))
               for name in (names[::-1] if swapped else names)]  # fmt: skip
    constants = [numpy_helper.from_array(spreads[axis], f"spread_{axis}") for axis in "xy"]
    constants += [numpy_helper.from_array(np.array([2]), "axis_x"),
                  numpy_helper.from_array(np.array([3]), "axis_y")]  # fmt: skip
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (batch, 3, height, width))
    graph = helper.make_graph(nodes, "simcc", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


def opened(path: Path, **settings: Any) -> Teacher:
    return open_teacher(path, TeacherSettings(mean=(0, 0, 0), std=(1, 1, 1), **settings))


def dots(
    size_hw: tuple[int, int] = SIZE_HW, count: int = 20
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Black crops with one bright pixel in each channel, and where (x, y) it is."""
    random = np.random.default_rng(0)
    points = random.integers(20, np.array(size_hw)[::-1] - 20, (count, 3, 2))
    crops = np.zeros((count, *size_hw, 3), np.uint8)
    for crop, places in zip(crops, points, strict=True):
        for channel, (x, y) in enumerate(places):
            crop[y, x, channel] = 255
    return crops, points


@pytest.mark.parametrize("ratio", [2, 1.5, 3])
def test_keypoints_lie_on_the_dots(tmp_path: Path, ratio: float) -> None:
    teacher = opened(write_model(tmp_path / "simcc.onnx", ratio))
    crops, points = dots()
    output = teacher.predict_and_decode(crops, (0, 1, 2))
    assert output.heatmaps.shape == (20, 3, *CELLS_HW)
    np.testing.assert_allclose(output.keypoints, points, atol=0.01)


@pytest.mark.parametrize("flip_test", [True, False])
def test_the_flip_test_moves_no_keypoint(tmp_path: Path, flip_test: bool) -> None:
    """The cells lie symmetrically in the crop, so that mirrored heatmaps need no shift."""
    teacher = opened(write_model(tmp_path / "simcc.onnx"), flip_test=flip_test)
    assert (teacher.frame, teacher.settings.flip_shift) == ("half-pixel", 0)
    crops, points = dots()
    output = teacher.predict_and_decode(crops, (0, 1, 2))
    np.testing.assert_allclose(output.keypoints, points, atol=0.01)


def test_heat_is_the_product_of_both_distributions_and_keeps_its_peak() -> None:
    """At the cell whose centre both peaks lie on, and falling off with the smoothed widths."""
    grid = SimccGrid.of(SIZE_HW, (192, 256), "it")
    cells = np.array([[7.0, 5.0]])
    (x, y), ratio = ((cells + 0.5) * 4 - 0.5)[0], 2
    along_x = 0.9 * np.exp(-((np.arange(192) - x * ratio) ** 2) / (2 * SIGMA**2))
    along_y = 0.8 * np.exp(-((np.arange(256) - y * ratio) ** 2) / (2 * SIGMA**2))
    heat = grid.heatmaps(along_x[None, None].astype(np.float32),
                         along_y[None, None].astype(np.float32))[0, 0]  # fmt: skip
    assert heat.shape == grid.size_hw == CELLS_HW
    assert heat[5, 7] == heat.max() == pytest.approx(0.72, abs=1e-3)
    deviation = np.hypot(SIGMA / (4 * ratio), 0.7)
    for step in (1, 2):
        expected = 0.72 * np.exp(-(step**2) / (2 * deviation**2))
        assert heat[5, 7 + step] == pytest.approx(expected, abs=2e-3)
        assert heat[5 - step, 7] == pytest.approx(expected, abs=2e-3)


def test_negative_values_are_no_heat() -> None:
    grid = SimccGrid.of(SIZE_HW, (192, 256), "it")
    negative = np.full((1, 1, 192), -3, np.float32), np.full((1, 1, 256), -2, np.float32)
    assert not grid.heatmaps(*negative).any()


@pytest.mark.parametrize(
    ("names", "swapped"),
    [(("simcc_x", "simcc_y"), True), (("out_1", "out_2"), False), (("out_1", "out_2"), True)],
)
def test_axes_are_told_by_names_or_by_sizes(
    tmp_path: Path, names: tuple[str, str], swapped: bool
) -> None:
    teacher = opened(write_model(tmp_path / "simcc.onnx", names=names, swapped=swapped))
    crops, points = dots()
    np.testing.assert_allclose(
        teacher.predict_and_decode(crops, (0, 1, 2)).keypoints, points, atol=0.01
    )


def test_the_first_output_is_x_where_nothing_tells() -> None:
    assert axes_of(("a", "b"), (96, 96), (48, 48)) == (0, 1)
    assert axes_of(("sim_Y", "sim_X"), (96, 96), (48, 48)) == (1, 0)


def test_a_fixed_batch_size_is_kept(tmp_path: Path) -> None:
    teacher = opened(write_model(tmp_path / "simcc.onnx", batch=4))
    crops, points = dots(count=6)
    assert teacher.settings.batch_size == 4
    np.testing.assert_allclose(
        teacher.predict_and_decode(crops, (0, 1, 2)).keypoints, points, atol=0.01
    )


@pytest.mark.parametrize("num_bins", [(192, 192), (48, 64), (200, 256)])
def test_other_sizes_are_refused(num_bins: tuple[int, int]) -> None:
    with pytest.raises(TeacherError, match=r"it has distributions of \d+ and \d+ bins for crops of "
                       "128x96"):  # fmt: skip
        SimccGrid.of(SIZE_HW, num_bins, "it")


def test_the_frame_is_that_of_the_cells() -> None:
    """The centre of cell c is pixel 4 c + 1.5, bin r (4 c + 1.5)."""
    affine = crop_to_heatmap("half-pixel", SIZE_HW, CELLS_HW)
    np.testing.assert_allclose(affine @ [4 * 3 + 1.5, 4 * 5 + 1.5, 1], [3, 5])
