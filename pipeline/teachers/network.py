"""What a heatmap network must offer to be a teacher; it knows of no frames, flips and stores."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.frames.geometry import SizeHW
from pipeline.settings import HeatmapFrame

Tokens = Mapping[str, NDArray[np.float32]]
"""By kind: ``keypoint`` (B, K, D) and ``visual`` (B, P, D)."""


class Prediction(NamedTuple):
    """What a heatmap network, or a teacher, predicts for a batch of crops."""

    heatmaps: NDArray[np.float32]  # (B, K, Hh, Wh); raw where they come from a network
    tokens: Tokens | None = None  # of the last layer, unflipped; None: not asked for


class HeatmapNetwork(Protocol):
    """Crops in, raw heatmaps out, and tokens if the network has any."""

    kind: str
    architecture: str
    sha256: str
    input_size_hw: SizeHW
    heatmap_size_hw: SizeHW
    num_keypoints: int
    keypoint_names: tuple[str, ...] | None
    """None: the file does not say."""
    heatmap_frame: HeatmapFrame
    fixed_batch_size: int | None

    @property
    def token_shape(self) -> tuple[int, SizeHW] | None:
        """D and the patch grid (height, width) of its tokens; None: it has no tokens."""
        ...

    @property
    def num_threads(self) -> int | None:
        """Threads that one forward pass keeps busy here; None: a GPU computes."""
        ...

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        """Return the raw heatmaps, and the tokens if asked, of (B, 3, H, W) normalised crops."""
        ...

    def execution(self) -> dict[str, Any]:
        """Return the settings that move the last bits of the heatmaps, resolved, as JSON values."""
        ...
