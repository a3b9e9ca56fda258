"""What a teacher said of all views of some people, as the store keeps it."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.frames.geometry import SizeHW
from pipeline.wording import counted
from store_schemas.heatmap_codec import NOT_MEASURED, CodecError
from store_schemas.optional_arrays import NONE, OptionalArrays
from store_schemas.teacher_store import Status


@dataclass(frozen=True)
class BadImage:
    """An image that could not be decoded, and whose people are therefore missing."""

    name: str
    instance_ids: tuple[int, ...]
    reason: str


@dataclass
class EncodedRows:
    """What a teacher said of all views of some people, as the store keeps it."""

    rows: range
    """The people."""
    heatmaps: NDArray[Any]  # (n, V, K, Hh, Wh) uint8 or float16
    outputs: NDArray[np.float32]  # (n, V, K, 4) as scale, confidence, x, y; crop pixels
    status: NDArray[np.uint8]  # (n, V)
    bad_images: list[BadImage] = field(default_factory=list)
    codec_error: CodecError = NOT_MEASURED
    optional: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Crops and tokens by array, as ``encode_shard`` takes them."""

    @classmethod
    def empty(
        cls,
        rows: range,
        num_views: int,
        num_keypoints: int,
        heatmap_size_hw: SizeHW,
        dtype: str,
        optional: OptionalArrays = NONE,
    ) -> Self:
        """Return rows of which nothing was written yet."""
        shape = (len(rows), num_views)
        more: dict[str, NDArray[Any]] = {
            name: np.zeros((*shape, *of_view), np.float16)
            for name, of_view in optional.token_shapes(num_keypoints).items()
        }
        if optional.crops is not None:
            more["crops"] = np.empty(shape, np.object_)
        return cls(
            rows,
            np.zeros((*shape, num_keypoints, *heatmap_size_hw), dtype),
            np.full((*shape, num_keypoints, 4), np.nan, np.float32),
            np.full(shape, Status.NOT_WRITTEN, np.uint8),
            optional=more,
        )


def describe_bad_images(bad_images: list[BadImage]) -> str:
    """Say how many images and people are concerned, and name the first few."""
    people = counted(sum(len(bad.instance_ids) for bad in bad_images), "person")
    return (
        f"{counted(len(bad_images), 'image')} with {people} could not be decoded: "
        f"{'; '.join(bad.reason for bad in bad_images[:5])}{'; ...' if bad_images[5:] else ''}"
    )
