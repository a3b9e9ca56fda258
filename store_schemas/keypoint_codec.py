"""Keypoints and confidences as a store without heatmaps keeps them: 6 bytes a keypoint.

x and y are int16 multiples of a step of 2^-14 of the crop's longer side (1/64 pixel of a crop of
256), so that a keypoint may lie up to twice that side from the crop's corner; the error is at most
half a step. A confidence is float16: half a unit of 11 significant bits, at least 2^-25. The fill
values, -32768 and NaN, are no stored keypoint.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from store_schemas.errors import SchemaError

KEYPOINT_BYTES = 2 + 2 + 2
"""Bytes of a keypoint's x, y and confidence."""
STEPS_PER_SIDE = 1 << 14
LARGEST_LEVEL = 32767
KEYPOINT_FILL = -32768


@dataclass(frozen=True)
class KeypointProfile:
    """Storage of keypoints and confidences alone."""

    step: float
    """Crop pixels of one stored unit."""
    name: ClassVar[str] = "keypoints"
    dtype: ClassVar[str] = "int16"

    @classmethod
    def of_crops(cls, size_hw: tuple[int, int]) -> Self:
        """Return the profile for crops of (H, W)."""
        return cls(max(size_hw) / STEPS_PER_SIDE)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as an identity's section ``codec`` keeps them."""
        return {"profile": self.name, "step": self.step}

    @classmethod
    def from_json(cls, codec: dict[str, Any]) -> Self:
        """Return the settings of an identity's section ``codec``.

        Raises:
            SchemaError: the step is no number above 0.
        """
        step = codec.get("step")
        if type(step) is not float or not 0 < step < 1e6:
            raise SchemaError(f"identity.codec: 'step' must be a number above 0, got {step!r}")
        return cls(step)

    def quantise(
        self, outputs: NDArray[np.float32]
    ) -> tuple[NDArray[np.int16], NDArray[np.float16]]:
        """Quantise outputs.

        Args:
            outputs: (..., K, 3) as (confidence, x, y), crop pixels, finite.

        Returns:
            keypoints: (..., K, 2) int16 as (x, y), in steps.
            confidences: (..., K).

        Raises:
            SchemaError: a keypoint or a confidence is too large to be stored.
        """
        levels = np.rint(outputs[..., 1:].astype(np.float64) / self.step)
        furthest = np.abs(levels).max(initial=0.0)
        if not furthest <= LARGEST_LEVEL:
            raise SchemaError(
                f"a keypoint must lie within {LARGEST_LEVEL * self.step:g} crop pixels of the "
                f"crop's corner to be stored, got {furthest * self.step:g}; store heatmaps instead"
            )
        largest = np.abs(outputs[..., 0]).max(initial=0.0)
        if not largest <= np.finfo(np.float16).max:
            raise SchemaError(f"a confidence must be at most 65504 to be stored, got {largest:g}")
        return levels.astype(np.int16), outputs[..., 0].astype(np.float16)

    def dequantise(self, keypoints: NDArray[np.int16]) -> NDArray[np.float32]:
        """Return keypoints (..., K, 2) as (x, y), crop pixels."""
        return (keypoints * self.step).astype(np.float32)
