"""A detector of people as an ONNX file, run by onnxruntime: one image input of one image."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.coco.boxes import Boxes
from pipeline.detectors.outputs import MAX_BOXES, decode_outputs, suppress_overlaps
from pipeline.detectors.settings import DetectorSettings
from pipeline.errors import ConfigError
from pipeline.frames.geometry import Affine, SizeHW, apply, invert, resize_affine
from pipeline.machine import available_cores
from pipeline.teachers.onnx_network import open_session
from pipeline.wording import one_line

_GREY = (114, 114, 114)
"""Colour around an image that does not fill the input, as YOLO's trainings have it."""


class OnnxDetector:
    """Finds the boxes of people in an image of any size."""

    def __init__(self, path: Path, settings: DetectorSettings, *, min_score: float) -> None:
        self._path, self._settings, self._min_score = path, settings, min_score
        self._session = open_session(path, available_cores(), "auto")
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) not in (3, 4):
            shapes = ", ".join(f"{each.name} {each.shape}" for each in inputs)
            raise ConfigError(
                f"the detector {path} has the inputs {shapes}; expected one image, (1, 3, height, "
                "width) or (3, height, width); export it so"
            )
        self._input = inputs[0]
        self._has_batch = len(self._input.shape) == 4
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.input_size_hw = self._input_size()

    def detect(self, image: NDArray[np.uint8]) -> Boxes:
        """Find people in an image, (H, W, 3) uint8 RGB; the best box comes first.

        Raises:
            ConfigError: the model cannot run on its input, or its outputs are not known.
        """
        image_to_input = self._affine((image.shape[0], image.shape[1]))
        pixels = self._pixels(image, image_to_input)
        try:
            found = self._session.run(self._outputs, {self._input.name: pixels})
        except Exception as error:  # onnxruntime raises classes of its own
            raise ConfigError(
                f"the detector {self._path} cannot run on a {pixels.shape} {pixels.dtype} input: "
                f"{one_line(error)}; export it for one image"
            ) from error
        outputs = dict(zip(self._outputs, map(np.asarray, found), strict=True))
        boxes, scores = decode_outputs(outputs, self.input_size_hw, self._settings)
        # Pixels' centres are whole numbers in the affine, but boxes are bounded by pixels' edges.
        corners = apply(invert(image_to_input), boxes.reshape(-1, 2, 2) - 0.5) + 0.5
        limit = np.array([image.shape[1], image.shape[0]], np.float64)
        corners = np.clip(np.nan_to_num(corners), 0, limit)
        extent = corners[:, 1] - corners[:, 0]
        is_kept = (scores >= self._min_score) & (extent > 0).all(axis=1)
        corners, extent, scores = corners[is_kept], extent[is_kept], scores[is_kept]
        rows = suppress_overlaps(corners.reshape(-1, 4), scores, self._settings.overlap)[:MAX_BOXES]
        return Boxes(np.concatenate([corners[:, 0], extent], axis=1)[rows], scores[rows])

    def _affine(self, size_hw: SizeHW) -> Affine:
        """Return the affine from the image to the input: stretched, or centred in its aspect."""
        if not self._settings.keep_aspect:
            return resize_affine(size_hw, self.input_size_hw)
        target = np.array(self.input_size_hw, np.float64)
        scale = float((target / np.array(size_hw)).min())
        margin = ((target - scale * np.array(size_hw)) / 2)[::-1]
        offset = margin + 0.5 * scale - 0.5
        return np.array([[scale, 0.0, offset[0]], [0.0, scale, offset[1]]])

    def _pixels(self, image: NDArray[np.uint8], image_to_input: Affine) -> NDArray[np.generic]:
        height, width = self.input_size_hw
        warped = cv2.warpAffine(
            image, image_to_input, (width, height), flags=cv2.INTER_LINEAR, borderValue=_GREY
        )
        if self._settings.channel_order == "bgr":
            warped = warped[..., ::-1]
        planes = np.ascontiguousarray(warped.transpose(2, 0, 1))
        if self._input.type != "tensor(uint8)":
            mean, std = (
                np.array(each, np.float32)[:, None, None]
                for each in (self._settings.mean, self._settings.std)
            )
            kind = np.float16 if self._input.type == "tensor(float16)" else np.float32
            scaled = planes.astype(np.float32) * np.float32(self._settings.scale)
            planes = ((scaled - mean) / std).astype(kind)
        return planes[None] if self._has_batch else planes

    def _input_size(self) -> SizeHW:
        channels, *sides = self._input.shape[-3:]
        if isinstance(channels, int) and channels != 3:
            raise ConfigError(
                f"the input of the detector {self._path} has shape {self._input.shape}; expected "
                "(1, 3, height, width) or (3, height, width); export it with its channels first"
            )
        given = self._settings.input_size_hw
        fixed = tuple(side for side in sides if isinstance(side, int) and side > 0)
        if len(fixed) < 2:
            if given is None:
                raise ConfigError(
                    f"the detector {self._path} takes any height and width; give them with --set "
                    "detector_settings.input_size_hw=[640,640] (height, width)"
                )
            return given
        if given not in (None, fixed):
            raise ConfigError(
                f"the detector {self._path} takes {fixed[0]}x{fixed[1]} (height x width), but "
                f"detector_settings.input_size_hw is {given}; leave it out"
            )
        return fixed[0], fixed[1]
