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

import numpy as np
from numpy.typing import NDArray

from pipeline.caching.breakdown import WorkClock
from pipeline.caching.encoded_rows import EncodedRows
from pipeline.frames.crop_stream import (
    CropBatch,
    ImageCrops,
    ImageRequest,
    batched_crops,
    requests_by_image,
    stream_crops,
)
from pipeline.parallel import map_ahead
from pipeline.teacher_store.opening import StoredPlan
from pipeline.teachers.network import Prediction
from pipeline.teachers.teacher import Teacher
from store_schemas.heatmap_codec import CodecError, sum_codec_errors
from store_schemas.teacher_store import StoreDimensions

OnProgress = Callable[[int], None]
"""Receives the number of views that were added."""

_Encoding = Future[tuple[int, CodecError]]
"""Gives the number of a batch's views and the codec's error."""


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
        begun: deque[tuple[range, int]] = deque()

        def requests() -> Iterator[ImageRequest]:
            for rows in ranges:
                group = self._requests(rows)
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
                num_views, error = encoding.result()
                # summed in the order of batches, whichever was encoded first
                encoded.codec_error = sum_codec_errors([encoded.codec_error, error])
                on_progress(num_views)

    def _requests(self, rows: range) -> list[ImageRequest]:
        people, taken = self.plan.people, slice(rows.start, rows.stop)
        return requests_by_image(
            people,
            self.image_folder,
            people.image_index[taken],
            self.plan.views.image_to_crop[taken],
            image_sha256=self.plan.image_sha256,
        )

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
            mark = partial(self._mark_unreadable, encoded, on_progress)
            for batch in batched_crops(of_range, self.teacher.settings.batch_size, mark):
                yield encoded, batch
            yield encoded, None

    def _mark_unreadable(
        self, encoded: EncodedRows, on_progress: OnProgress, image: ImageCrops
    ) -> None:
        on_progress(encoded.mark_unreadable(image, self.plan.people.instance_id))

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
        return encoded, encoders.submit(self._encode, encoded, rows, views, prediction)

    def _encode(
        self,
        encoded: EncodedRows,
        rows: NDArray[np.int64],
        views: NDArray[np.int64],
        prediction: Prediction,
    ) -> tuple[int, CodecError]:
        """Decode the keypoints of heatmaps, and encode both into their rows."""
        with self.clock.measure("encode"):
            output = self.teacher.decode(prediction)
            return len(rows), encoded.encode(rows, views, output)
