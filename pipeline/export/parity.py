"""How far an exported student is from its run: the same crops through both."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ExportError
from pipeline.export.student_file import Precision, StudentFile
from pipeline.frames.geometry import SizeHW
from pipeline.models.pose_networks import Student

CHECKED_BATCHES = (1, 64)
LARGEST_DIFFERENCE: Mapping[Precision, float] = {"float32": 1e-4, "float16": 1e-2}
"""Largest difference from torch of an output, in units of the network's head. That of int8 is a
matter of AP: single keypoints of a quantised network move far, most of them little."""


def generated_crops(size_hw: SizeHW) -> NDArray[np.uint8]:
    """Draw a batch of noise, where there are no images: (64, H, W, 3) uint8."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (CHECKED_BATCHES[-1], *size_hw, 3), np.uint8)


def largest_difference(network: Student, file: StudentFile, crops: NDArray[np.uint8]) -> float:
    """Return the largest difference of any output from torch, at every checked batch size.

    Keypoints are compared in widths and heights of the crop, scores and sigmas as they are.

    crops: (B, H, W, 3) uint8, RGB; repeated where there are fewer than a batch.
    """
    height, width = network.input_size_hw
    largest = 0.0
    for batch in CHECKED_BATCHES:
        part = np.resize(crops, (batch, height, width, 3))
        expected, found = _predict(network, file, part), file.predict(part)
        in_crops = found.keypoints.astype(np.float64) / np.array([width, height])
        for one, other in zip(expected, (in_crops, *found[1:]), strict=True):
            difference = float(np.abs(one - other).max())
            # A value that is not finite is no difference to compare: it is the largest.
            largest = max(largest, difference if np.isfinite(difference) else np.inf)
    return largest


def require_parity(file: StudentFile, difference: float) -> None:
    """Raise ExportError for a difference from torch that is too large for the file's precision."""
    precision = file.description.precision
    limit = LARGEST_DIFFERENCE.get(precision, np.inf)
    if not difference <= limit or not np.isfinite(difference):
        raise ExportError(
            f"the exported {precision} student is not the network of its run: an output differs by "
            f"{difference:.2g}, expected at most {limit:g}; nothing was written; export another "
            "precision, or report the versions of torch and onnxruntime"
        )


def _predict(
    network: Student, file: StudentFile, crops: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], ...]:
    with torch.inference_mode():
        images = file.description.network.pixels.normalise(torch.from_numpy(crops))
        output = network(images)
    return tuple(t.double().numpy() for t in (output.keypoints, output.scores, output.sigmas))
