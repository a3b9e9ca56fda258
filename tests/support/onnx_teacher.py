"""A teacher of a few kilobytes, for tests of what a teacher's maps go through."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES, flip_indices_of_names


def write_onnx_teacher(
    path: Path,
    seed: int = 0,
    num_keypoints: int = 17,
    gain: float = 1.0,
    is_symmetric: bool = True,
) -> Path:
    """Write an ONNX network in the frame half-pixel: it sees edges, not people.

    is_symmetric: whether it predicts of a mirrored crop the mirrored heatmaps.
    """
    filters = np.random.default_rng(seed).normal(0, 0.1, (num_keypoints, 3, 4, 4))
    swap = (
        list(flip_indices_of_names(COCO_KEYPOINT_NAMES))
        if num_keypoints == 17
        else list(range(num_keypoints))
    )
    filters = gain * (filters + filters[swap, :, :, ::-1] * is_symmetric)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["heatmaps"], strides=[4, 4])],
        "teacher",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("n", 3, 256, 192))],
        [helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(filters.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path
