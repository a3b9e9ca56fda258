"""The rows of a shard: a teacher's predictions for all views of some people, encoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.frames.crop_stream import ImageCrops
from pipeline.teachers.teacher import TeacherOutput
from pipeline.wording import counted
from store_schemas.heatmap_codec import (
    NOT_MEASURED,
    CodecError,
    is_measured,
    measure_codec_error,
    quantise_heatmaps,
)
from store_schemas.teacher_store import Status, StoreDimensions


@dataclass(frozen=True)
class BadImage:
    """An image that could not be decoded, and whose people are therefore missing."""

    name: str
    instance_ids: tuple[int, ...]
    reason: str


class EncodedRows:
    """All views of consecutive people as a store keeps them, filled batch by batch."""

    def __init__(self, rows: range, dimensions: StoreDimensions, threshold: float) -> None:
        """Allocate the arrays of n people.

        rows: the people, as numbered in the store.
        threshold: largest error of heat far from a map's peak.
        """
        self.rows = rows
        self._threshold, self._profile = threshold, dimensions.profile
        shape = (len(rows), dimensions.num_views)
        keypoints = dimensions.num_keypoints
        self.heatmaps: NDArray[Any] = np.zeros(  # (n, V, K, Hh, Wh) uint8 or float16
            (*shape, keypoints, *dimensions.heatmap_size_hw), dimensions.profile.dtype
        )
        # (n, V, K, 4) as scale, confidence, x, y; crop pixels
        self.outputs = np.full((*shape, keypoints, 4), np.nan, np.float32)
        self.status = np.full(shape, Status.NOT_WRITTEN, np.uint8)  # (n, V)
        self.optional: dict[str, NDArray[Any]] = {
            name: np.zeros((*shape, *of_view), np.float16)
            for name, of_view in dimensions.optional.token_shapes(keypoints).items()
        }
        """Tokens and crops by array, as ``TeacherStoreWriter.write_shard`` takes them."""
        if dimensions.optional.crops is not None:
            self.optional["crops"] = np.empty(shape, np.object_)
        self.codec_error: CodecError = NOT_MEASURED
        self.bad_images: list[BadImage] = []

    def encode(
        self,
        rows: NDArray[np.int64],
        views: NDArray[np.int64],
        output: TeacherOutput,
    ) -> CodecError:
        """Encode the teacher's predictions for a batch of views, and return the codec's error.

        Several threads may encode batches at the same time.

        rows, views: (B,), places of the batch; rows counted from the first.
        output: with tokens, if the store keeps any.
        """
        with np.errstate(over="ignore"):  # infinite tokens are refused when the shard is written
            for name in self.optional.keys() - {"crops"}:
                values = (output.tokens or {})[name.removesuffix("_tokens")]
                self.optional[name][rows, views] = values.astype(np.float16)
        is_finite = np.isfinite(output.heatmaps).all(axis=(1, 2, 3))
        self.status[rows, views] = np.where(is_finite, Status.OK, Status.OUTPUT_NOT_FINITE)
        rows, views, heatmaps = rows[is_finite], views[is_finite], output.heatmaps[is_finite]
        stored, scale = quantise_heatmaps(heatmaps, self._threshold, self._profile)
        self.heatmaps[rows, views] = stored
        self.outputs[rows, views, :, 0] = scale
        self.outputs[rows, views, :, 1] = output.confidences[is_finite]
        self.outputs[rows, views, :, 2:] = output.keypoints[is_finite]
        measured = [i for i, row in enumerate(rows.tolist()) if is_measured(self.rows.start + row)]
        if not measured:
            return NOT_MEASURED
        return measure_codec_error(heatmaps[measured], stored[measured], scale[measured])

    def keep_crops(self, images: Iterable[ImageCrops]) -> Iterator[ImageCrops]:
        """Yield images, and keep the JPEG files of their crops, if they have any."""
        for image in images:
            if image.stored is not None:
                self.optional["crops"][image.request.rows] = image.stored
            yield image

    def mark_unreadable(self, image: ImageCrops, instance_ids: NDArray[np.int64]) -> int:
        """Mark all views of an image's people as missing, and return their number.

        instance_ids: (N,), of all people of the store.
        """
        rows = image.request.rows
        self.status[rows] = Status.IMAGE_UNREADABLE
        ids = tuple(instance_ids[self.rows.start + rows].tolist())
        self.bad_images.append(BadImage(image.request.path.name, ids, str(image.error)))
        return self.status[rows].size


def describe_bad_images(bad_images: list[BadImage]) -> str:
    """Return the numbers of images and people concerned, and the reasons of the first few."""
    people = counted(sum(len(bad.instance_ids) for bad in bad_images), "person")
    return (
        f"{counted(len(bad_images), 'image')} with {people} could not be decoded: "
        f"{'; '.join(bad.reason for bad in bad_images[:5])}{'; ...' if bad_images[5:] else ''}"
    )
