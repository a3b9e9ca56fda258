"""A detector of a few bytes: it finds bright cells of its input, as CenterNet finds people."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDE, CELLS, BOX_CELLS = 8, 8, (2.0, 4.0)
SIDE = STRIDE * CELLS


def write_onnx_detector(
    path: Path, *, is_dynamic: bool = False, box_cells: tuple[float, float] = BOX_CELLS
) -> Path:
    """Write a model of (1, 3, 64, 64): heat is each cell's mean red, sizes are constant."""
    side = None if is_dynamic else SIDE
    sizes = np.broadcast_to(np.array(box_cells, np.float32)[:, None, None], (2, CELLS, CELLS))[None]
    red = np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "red"], ["brightness"]),
            helper.make_node(
                "AveragePool",
                ["brightness"],
                ["heat"],
                kernel_shape=[STRIDE] * 2,
                strides=[STRIDE] * 2,
            ),
            helper.make_node("Identity", ["sizes"], ["size"]),
        ],
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, side, side))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("heat", "size")],
        [
            numpy_helper.from_array(red, "red"),
            numpy_helper.from_array(np.ascontiguousarray(sizes), "sizes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path
