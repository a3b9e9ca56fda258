"""What a heatmap network must offer to be a teacher; it knows of no frames, flips and stores."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.frames.geometry import SizeHW
from pipeline.settings import HeatmapFrame

Tokens = Mapping[str, NDArray[np.float32]]
"""By kind: ``keypoint`` (B, K, D) and ``visual`` (B, P, D)."""


class HeatmapNetwork(Protocol):
    """Crops in, raw heatmaps out; the two implementations know nothing of frames or flips."""

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
    def num_threads(self) -> int | None:
        """Threads that one forward pass keeps busy here; None: a GPU computes."""
        ...

    def forward(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (B, K, Hh, Wh) raw heatmaps of (B, 3, H, W) normalised crops."""
        ...

    def execution(self) -> dict[str, Any]:
        """Return the settings that move the last bits of the heatmaps, resolved, as JSON values."""
        ...


@runtime_checkable
class TokenHeatmapNetwork(HeatmapNetwork, Protocol):
    """One that draws its heatmaps from tokens."""

    token_dim: int
    token_grid_hw: SizeHW

    def forward_with_tokens(
        self, images: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], Tokens]:
        """Return what ``forward`` does, and the tokens by kind, (B, K, D) and (B, P, D)."""
        ...
