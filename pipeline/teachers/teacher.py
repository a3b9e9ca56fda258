"""A teacher: a heatmap network with its preprocessing, flip test, heatmap frame and decoding."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TeacherError
from pipeline.frames.geometry import Affine, SizeHW, apply, crop_to_heatmap, invert, mirror_gap
from pipeline.frames.heatmaps import decode_heatmaps, mirror_heatmaps
from pipeline.frames.pixels import PixelNormalisation
from pipeline.settings import HeatmapFrame, TeacherSettings
from pipeline.teachers.network import HeatmapNetwork, Prediction, Tokens

MAX_BATCHES = 8
"""Largest number of batches predicted at a time: each takes the network's memory again."""
BATCHES_ON_GPU = 2
"""One is computed while the crops of the next one are normalised and copied."""


YOUNGER: Mapping[str, object] = {"keypoint_order": None, "precision": "float32"}
"""Settings that the first stores lack, and what they then are; so named only where they differ."""


class TeacherOutput(NamedTuple):
    """Prediction of a teacher for a batch of crops, decoded."""

    heatmaps: NDArray[np.float32]  # (B, K, Hh, Wh)
    confidences: NDArray[np.float32]  # (B, K), heat of the highest cell
    keypoints: NDArray[np.float64]  # (B, K, 2) as (x, y), crop pixels, sub-pixel
    tokens: Tokens | None = None  # of the last layer, unflipped; None: not requested


class Teacher:
    """A heatmap network together with its settings, resolved."""

    def __init__(
        self, network: HeatmapNetwork, settings: TeacherSettings, notes: tuple[str, ...] = ()
    ) -> None:
        """Resolve the settings; ``notes``: what a user should know of the file, a sentence each."""
        frame = settings.heatmap_frame or network.heatmap_frame
        shift = settings.flip_shift
        self.network = network
        self.notes = notes
        self.settings = settings.model_copy(
            update={
                "heatmap_frame": frame,
                "input_size_hw": network.input_size_hw,
                "flip_shift": (1 if frame == "msra" else 0) if shift is None else shift,
                "batch_size": network.fixed_batch_size or settings.batch_size,
            }
        )
        self._pixels = PixelNormalisation(
            settings.mean, settings.std, settings.scale, settings.channel_order
        )
        self.frame: HeatmapFrame = frame
        self.input_size_hw = network.input_size_hw
        self.heatmap_size_hw = network.heatmap_size_hw
        self._order = _checked_order(settings.keypoint_order, network.num_keypoints)
        self.num_keypoints = len(self._order or range(network.num_keypoints))
        self.crop_to_heatmap: Affine = crop_to_heatmap(
            frame, self.input_size_hw, self.heatmap_size_hw
        )

    @property
    def expected_mirror_gap(self) -> float:
        """Mirror gap that the frame implies, in cells; see ``geometry.mirror_gap``."""
        return mirror_gap(self.crop_to_heatmap, self.input_size_hw[1], self.heatmap_size_hw[1])

    def batches_at_a_time(self, num_cores: int) -> int:
        """Return the number of batches that keep so many cores, or the GPU, busy."""
        threads = self.network.num_threads
        if threads is None:
            return BATCHES_ON_GPU
        return min(max(num_cores // threads, 1), MAX_BATCHES)

    def identity(self) -> dict[str, Any]:
        """Return all settings that decide heatmaps and decoded keypoints, as JSON values."""
        settings = self.settings.model_dump(
            mode="json",
            exclude={"batch_size", "num_threads", "device", "output_name", "architecture"},
        )
        for name, usual in YOUNGER.items():
            if settings[name] == usual:
                del settings[name]
        return {
            "kind": self.network.kind,
            "architecture": self.network.architecture,
            "sha256": self.network.sha256,
            "num_keypoints": self.num_keypoints,
            "heatmap_size_hw": list(self.heatmap_size_hw),
            "output_name": self.settings.output_name,
            **settings,
        }

    def execution_recipe(self) -> dict[str, Any]:
        """Return the settings that change the last bits of heatmaps, as JSON values.

        Versions of libraries stand in the provenance only, so that a store can be resumed after an
        update.
        """
        settings = self.settings.model_dump(mode="json", include={"batch_size", "num_threads"})
        return {**settings, "machine": platform.machine(), **self.network.execution()}

    def predict_and_decode(
        self, crops: NDArray[np.uint8], flip_indices: tuple[int, ...]
    ) -> TeacherOutput:
        """Predict crops and decode the heatmaps; arguments as of ``predict``."""
        return self.decode(self.predict(crops, flip_indices))

    def predict(
        self,
        crops: NDArray[np.uint8],
        flip_indices: tuple[int, ...],
        with_tokens: bool = False,
    ) -> Prediction:
        """Predict crops; a flip test averages the heatmaps with those of the mirrored crops.

        crops: (B, H, W, 3) uint8, RGB.
        flip_indices: used only by the flip test.
        with_tokens: return the tokens of the unflipped pass too.

        Raises:
            TeacherError: tokens are requested and the network has none.
        """
        if with_tokens:
            self.require_tokens()
        if not self.settings.flip_test:
            return self._pass(crops, with_tokens)
        if self.network.num_threads is None and self.network.fixed_batch_size is None:
            prediction, mirrored = self._pass_of_both(crops, with_tokens)
        else:
            prediction = self._pass(crops, with_tokens)
            mirrored = self.predict_heatmaps(crops[:, :, ::-1])
        back = mirror_heatmaps(mirrored, flip_indices, self.settings.flip_shift or 0)
        return prediction._replace(heatmaps=np.float32(0.5) * (prediction.heatmaps + back))

    def require_tokens(self) -> tuple[int, SizeHW]:
        """Return D and the patch grid of the network's tokens.

        Raises:
            TeacherError: the network has no tokens.
        """
        if self.network.token_shape is None:
            raise TeacherError(
                f"tokens must come from a teacher of `distil train-teacher`, but "
                f"{self.network.architecture} is of kind {self.network.kind}; leave --tokens out"
            )
        return self.network.token_shape

    def decode(self, prediction: Prediction) -> TeacherOutput:
        """Decode the keypoints and confidences of heatmaps; thread-safe."""
        keypoints, confidences = self.decode_heatmaps(prediction.heatmaps)
        return TeacherOutput(prediction.heatmaps, confidences, keypoints, prediction.tokens)

    def decode_heatmaps(
        self, heatmaps: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Decode (B, K, Hh, Wh) heatmaps; those that are not finite give NaN.

        Returns points (B, K, 2) as (x, y) float64, crop pixels; and peaks (B, K).
        """
        is_finite = np.isfinite(heatmaps).all(axis=(2, 3))
        points, peaks = decode_heatmaps(
            heatmaps if is_finite.all() else np.nan_to_num(heatmaps), self.settings.decoding
        )
        points = apply(invert(self.crop_to_heatmap), points)
        points[~is_finite] = np.nan
        peaks[~is_finite] = np.nan
        return points, peaks

    def predict_heatmaps(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predict the (B, K, Hh, Wh) heatmaps of crops in one unflipped pass."""
        return self._pass(crops).heatmaps

    def _pass(self, crops: NDArray[np.uint8], with_tokens: bool = False) -> Prediction:
        """Predict crops once, in batches of one fixed size; the last one is padded."""
        outputs = []
        for padded, size in self._padded_batches(crops):
            output = self.network.forward(self.preprocess(padded), with_tokens)
            outputs.append(_rows(output, 0, size))
        return self._joined(outputs)

    def _pass_of_both(
        self, crops: NDArray[np.uint8], with_tokens: bool
    ) -> tuple[Prediction, NDArray[np.float32]]:
        """Predict crops and the mirrored ones in the same forward passes, of twice the batch."""
        outputs, mirrored = [], []
        for padded, size in self._padded_batches(crops):
            both = np.concatenate([padded, padded[:, :, ::-1]])
            output = self.network.forward(self.preprocess(both), with_tokens)
            outputs.append(_rows(output, 0, size))
            mirrored.append(_rows(output, len(padded), len(padded) + size)._replace(tokens=None))
        return self._joined(outputs), self._joined(mirrored).heatmaps

    def _padded_batches(self, crops: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Yield crops in batches of one size, and how many of each are no padding."""
        batch_size = self.settings.batch_size
        for start in range(0, len(crops), batch_size):
            batch = crops[start : start + batch_size]
            missing = batch_size - len(batch)
            yield np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]), len(batch)

    def _joined(self, outputs: Sequence[Prediction]) -> Prediction:
        """Return the predictions of several batches as one, in the order of the annotations."""
        outputs = [self._in_order(output) for output in outputs]
        heatmaps = np.concatenate([output.heatmaps for output in outputs])
        if self.settings.heatmap_activation == "sigmoid":
            # A logit below -88 would overflow exp; at 80 a sigmoid is 0 or 1 in float32 anyway.
            logits = np.clip(heatmaps, np.float32(-80), np.float32(80))
            heatmaps = np.float32(1) / (np.float32(1) + np.exp(-logits))
        if self.settings.heatmap_gain != 1:
            heatmaps = heatmaps * np.float32(self.settings.heatmap_gain)
        tokens = [output.tokens for output in outputs if output.tokens is not None]
        if not tokens:
            return Prediction(heatmaps)
        return Prediction(heatmaps, {k: np.concatenate([t[k] for t in tokens]) for k in tokens[0]})

    @property
    def keypoint_names(self) -> tuple[str, ...] | None:
        """The names of the keypoints in the order of the heatmaps; None: the network has none."""
        names = self.network.keypoint_names
        if names is None or self._order is None:
            return names
        return tuple(names[output] for output in self._order)

    def _in_order(self, prediction: Prediction) -> Prediction:
        """Return a network's heatmaps and keypoint tokens in the order of the annotations."""
        if self._order is None:
            return prediction
        order, tokens = list(self._order), prediction.tokens
        if tokens is not None and "keypoint" in tokens:
            tokens = {**tokens, "keypoint": tokens["keypoint"][:, order]}
        return Prediction(prediction.heatmaps[:, order], tokens)

    def preprocess(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (B, 3, H, W) normalised crops of (B, H, W, 3) uint8 RGB ones."""
        return self._pixels.normalise_array(crops)


def _rows(prediction: Prediction, start: int, stop: int) -> Prediction:
    tokens = prediction.tokens
    return Prediction(
        prediction.heatmaps[start:stop],
        None if tokens is None else {kind: each[start:stop] for kind, each in tokens.items()},
    )


def _checked_order(order: tuple[int, ...] | None, num_outputs: int) -> tuple[int, ...] | None:
    """Return an order of outputs, or raise TeacherError if it names one that there is not."""
    if order is None or (len(set(order)) == len(order) > 0 and max(order) < num_outputs):
        return order
    raise TeacherError(
        f"keypoint_order must name outputs of the teacher, 0 to {num_outputs - 1}, none of them "
        f"twice, got {','.join(map(str, order)) or 'none'}; correct --keypoint-order"
    )


def require_settings(settings: TeacherSettings, known: Mapping[str, Any], source: Path) -> None:
    """Refuse settings that contradict the network's own file.

    known: settings that the file has; None: it has none.

    Raises:
        TeacherError: names the setting and both values.
    """
    for field, value in known.items():
        given = getattr(settings, field)
        if given is not None and value is not None and given != value:
            raise TeacherError(f"{field} is {given} but {source} has {value}; leave the option out")
