"""Protocol of the heatmap networks that teachers use: crops in, raw heatmaps and tokens out."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.frames.geometry import SizeHW
from pipeline.settings import HeatmapFrame

Tokens = Mapping[str, NDArray[np.float32]]
"""Tokens of the last layer by kind: ``keypoint`` (B, K, D) and ``visual`` (B, P, D)."""


class Prediction(NamedTuple):
    """Prediction of a heatmap network, or of a teacher, for a batch of crops."""

    heatmaps: NDArray[np.float32]  # (B, K, Hh, Wh); raw where they come from a network
    tokens: Tokens | None = None  # of the last layer, unflipped; None: not requested


class HeatmapNetwork(Protocol):
    """A network that predicts raw heatmaps of normalised crops, and tokens if it has any."""

    kind: str
    architecture: str
    sha256: str
    input_size_hw: SizeHW
    heatmap_size_hw: SizeHW
    num_keypoints: int
    keypoint_names: tuple[str, ...] | None
    """None: the file does not name them."""
    heatmap_frame: HeatmapFrame
    fixed_batch_size: int | None
    """Batch size that the file fixes; None: any."""

    @property
    def token_shape(self) -> tuple[int, SizeHW] | None:
        """D and the patch grid (height, width) of its tokens; None: it has no tokens."""
        ...

    @property
    def num_threads(self) -> int | None:
        """Threads that one forward pass keeps busy here; None: a GPU computes."""
        ...

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        """Predict raw heatmaps, and tokens if requested, of (B, 3, H, W) normalised crops."""
        ...

    def execution(self) -> dict[str, Any]:
        """Return the settings that change the last bits of heatmaps, resolved, as JSON values."""
        ...
