"""Stream from images to encoded rows: decoding, the teacher and encoding overlap, in threads.

Images are decoded and warped, and heatmaps encoded, in threads beside the teacher's, so that the
teacher does not wait. It predicts several batches at a time where that keeps the cores busier
than one batch that all of them share. The results do not depend on the order of work in time.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.caching.breakdown import WorkClock
from pipeline.frames.crop_stream import (
    CropBatch,
    ImageCrops,
    ImageRequest,
    batched_crops,
    requests_by_image,
    stream_crops,
)
from pipeline.machine import map_ahead
from pipeline.teacher_store.plan import StoredPlan
from pipeline.teachers.teacher import Teacher, TeacherOutput
from pipeline.wording import counted
from store_schemas.formats import TOKEN_SCALES, HeatmapProfile
from store_schemas.heatmap_codec import (
    NOT_MEASURED,
    CodecError,
    is_measured,
    measure_codec_error,
    quantise_heatmaps,
    sum_codec_errors,
)
from store_schemas.teacher_store import Status, StoreDimensions
from store_schemas.token_codec import measure_token_error, quantise_tokens

OnProgress = Callable[[int], None]
"""Receives the number of views that were added."""


class StoredErrors(NamedTuple):
    """Differences of what is stored from what a teacher predicted."""

    heat: CodecError = NOT_MEASURED
    tokens: CodecError = NOT_MEASURED
    """Error of int8 tokens, relative to each token's largest number."""

    def plus(self, other: "StoredErrors") -> "StoredErrors":
        """Return the errors over the values of both."""
        return StoredErrors(*(sum_codec_errors(pair) for pair in zip(self, other, strict=True)))


_Encoding = Future[tuple[int, StoredErrors]]
"""Gives the number of a batch's views and the errors of what is stored of them."""


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
        self.heatmaps: NDArray[Any] | None = None
        """(n, V, K, Hh, Wh) uint8 or float16; None: the store has none."""
        num_columns = 3
        if isinstance(self._profile, HeatmapProfile):
            maps = (*shape, keypoints, *dimensions.heatmap_size_hw)
            self.heatmaps = np.zeros(maps, self._profile.dtype)
            num_columns = 4
        self.outputs = np.full((*shape, keypoints, num_columns), np.nan, np.float32)
        """(n, V, K, 4) as scale, confidence, x, y; without heatmaps no scale; crop pixels."""
        self.status = np.full(shape, Status.NOT_WRITTEN, np.uint8)  # (n, V)
        self.optional: dict[str, NDArray[Any]] = {}
        """Tokens and crops by array, as ``TeacherStoreWriter.write_shard`` takes them."""
        optional = dimensions.optional
        self._token_arrays = tuple(optional.token_shapes(keypoints))
        self._has_token_scales = optional.has_token_scales
        for name, of_view in optional.token_shapes(keypoints).items():
            assert optional.tokens is not None
            self.optional[name] = np.zeros((*shape, *of_view), optional.tokens.dtype)
            if self._has_token_scales:
                self.optional[TOKEN_SCALES[name]] = np.zeros((*shape, of_view[0]), np.float16)
        if optional.crops is not None:
            self.optional["crops"] = np.empty(shape, np.object_)
        self.errors = StoredErrors()
        self.bad_images: list[BadImage] = []

    def encode(
        self,
        rows: NDArray[np.int64],
        views: NDArray[np.int64],
        output: TeacherOutput,
    ) -> StoredErrors:
        """Encode the teacher's predictions for a batch of views, and return the errors.

        Several threads may encode batches at the same time.

        rows, views: (B,), places of the batch; rows counted from the first.
        output: with tokens, if the store keeps any.
        """
        is_finite = np.isfinite(output.heatmaps).all(axis=(1, 2, 3))
        self.status[rows, views] = np.where(is_finite, Status.OK, Status.OUTPUT_NOT_FINITE)
        rows, views, heatmaps = rows[is_finite], views[is_finite], output.heatmaps[is_finite]
        measured = [i for i, row in enumerate(rows.tolist()) if is_measured(self.rows.start + row)]
        token_error = NOT_MEASURED
        for name in self._token_arrays:
            tokens = (output.tokens or {})[name.removesuffix("_tokens")][is_finite]
            error = self._encode_tokens(name, rows, views, tokens, measured)
            token_error = sum_codec_errors([token_error, error])
        self.outputs[rows, views, :, -3] = output.confidences[is_finite]
        self.outputs[rows, views, :, -2:] = output.keypoints[is_finite]
        if self.heatmaps is None or not isinstance(self._profile, HeatmapProfile):
            return StoredErrors(tokens=token_error)
        stored, scale = quantise_heatmaps(heatmaps, self._threshold, self._profile)
        self.heatmaps[rows, views] = stored
        self.outputs[rows, views, :, 0] = scale
        if not measured:
            return StoredErrors()
        heat_error = measure_codec_error(heatmaps[measured], stored[measured], scale[measured])
        return StoredErrors(heat_error, token_error)

    def _encode_tokens(
        self,
        name: str,
        rows: NDArray[np.int64],
        views: NDArray[np.int64],
        tokens: NDArray[np.float32],
        measured: list[int],
    ) -> CodecError:
        """Encode one kind of tokens of some views, and return the error over the measured ones."""
        if not self._has_token_scales:
            with np.errstate(over="ignore"):  # refused when the shard is written
                self.optional[name][rows, views] = tokens.astype(np.float16)
            return NOT_MEASURED
        stored, scale = quantise_tokens(tokens)
        self.optional[name][rows, views] = stored
        self.optional[TOKEN_SCALES[name]][rows, views] = scale
        if not measured or not np.isfinite(scale).all():
            return NOT_MEASURED
        return measure_token_error(tokens[measured], stored[measured], scale[measured])

    def keep_crops(self, images: Iterable[ImageCrops]) -> Iterator[ImageCrops]:
        """Yield images, and keep the JPEG files of their crops, if they have any."""
        for image in images:
            if image.stored is not None:
                self.optional["crops"][image.request.rows] = image.stored
            yield image

    def mark_unreadable(
        self, instance_ids: NDArray[np.int64], on_progress: OnProgress, image: ImageCrops
    ) -> None:
        """Mark all views of an image's people as missing, and count them as progress.

        instance_ids: (N,), of all people of the store.
        """
        rows = image.request.rows
        self.status[rows] = Status.IMAGE_UNREADABLE
        ids = tuple(instance_ids[self.rows.start + rows].tolist())
        self.bad_images.append(BadImage(image.request.path.name, ids, str(image.error)))
        on_progress(self.status[rows].size)


def describe_bad_images(bad_images: list[BadImage]) -> str:
    """Return the numbers of images and people concerned, and the reasons of the first few."""
    people = counted(sum(len(bad.instance_ids) for bad in bad_images), "person")
    return (
        f"{counted(len(bad_images), 'image')} with {people} could not be decoded: "
        f"{'; '.join(bad.reason for bad in bad_images[:5])}{'; ...' if bad_images[5:] else ''}"
    )


@dataclass(frozen=True)
class PredictionStream:
    """A teacher, the people whose views it predicts, and how its predictions are encoded."""

    teacher: Teacher
    plan: StoredPlan
    image_folder: Path
    dimensions: StoreDimensions
    threshold: float
    """Largest error of heat far from a map's peak."""
    clock: WorkClock
    """Measures the activities ``decode``, ``warp`` and ``encode``, and the teacher."""
    num_threads: int
    """Threads that decode and warp, and as many that encode."""
    num_parallel: int
    """Batches that the teacher predicts at a time."""

    def encoded_rows(
        self, ranges: Iterable[range], on_progress: OnProgress = lambda _: None
    ) -> Generator[EncodedRows]:
        """Predict all views of people, and yield them encoded, range by range.

        A batch never has people of two ranges. While the last batches of a range are encoded, the
        teacher predicts the next one, whose images are decoded already.

        ranges: rows of the store; iterated a little ahead.
        """
        people = self.plan.people
        begun: deque[tuple[range, int]] = deque()

        def requests() -> Iterator[ImageRequest]:
            for rows in ranges:
                taken = slice(rows.start, rows.stop)
                group = requests_by_image(
                    people,
                    self.image_folder,
                    people.image_index[taken],
                    self.plan.views.image_to_crop[taken],
                    image_sha256=self.plan.image_sha256,
                )
                begun.append((rows, len(group)))
                yield from group

        images = stream_crops(
            requests(),
            self.teacher.input_size_hw,
            num_threads=self.num_threads,
            measure=self.clock.measure,
            crop_format=self.dimensions.optional.crops,
        )
        with (
            closing(images),
            ThreadPoolExecutor(self.num_threads, "encode") as encoders,
            ThreadPoolExecutor(self.num_parallel, "teacher") as predictors,
            closing(
                map_ahead(
                    predictors,
                    lambda part: self._predict_and_encode(*part, encoders),
                    self._batches(images, begun, on_progress),
                    lookahead=self.num_parallel + self.num_threads,
                )
            ) as parts,
        ):
            for encoded, encoding in parts:
                if encoding is None:
                    yield encoded
                    continue
                with self.clock.waiting_for("encoding"):
                    num_views, errors = encoding.result()
                # summed in the order of batches, whichever was encoded first
                encoded.errors = encoded.errors.plus(errors)
                on_progress(num_views)

    def _batches(
        self,
        images: Iterator[ImageCrops],
        begun: deque[tuple[range, int]],
        on_progress: OnProgress,
    ) -> Iterator[tuple[EncodedRows, CropBatch | None]]:
        """Yield the batches of each range with the rows they fill, and None after the last one.

        begun: ranges and their numbers of images, from the range of the next image on.
        """
        for image in images:
            rows, num_images = begun.popleft()
            encoded = EncodedRows(rows, self.dimensions, self.threshold)
            of_range = encoded.keep_crops(chain([image], islice(images, num_images - 1)))
            mark = partial(encoded.mark_unreadable, self.plan.people.instance_id, on_progress)
            batches = batched_crops(of_range, self.teacher.settings.batch_size, mark)
            while True:
                with self.clock.waiting_for("crops"):
                    batch = next(batches, None)
                if batch is None:
                    break
                yield encoded, batch
            yield encoded, None

    def _predict_and_encode(
        self, encoded: EncodedRows, batch: CropBatch | None, encoders: Executor
    ) -> tuple[EncodedRows, _Encoding | None]:
        """Predict a batch in this thread, and have the prediction encoded in another."""
        if batch is None:
            return encoded, None
        with self.clock.teacher_at_work():
            prediction = self.teacher.predict(
                batch.crops,
                self.plan.people.skeleton.flip_indices,
                with_tokens=self.dimensions.optional.tokens is not None,
            )
        rows, views = batch.rows, batch.views  # the crops themselves are not kept any longer

        def encode() -> tuple[int, StoredErrors]:
            with self.clock.measure("encode"):
                return len(rows), encoded.encode(rows, views, self.teacher.decode(prediction))

        return encoded, encoders.submit(encode)
