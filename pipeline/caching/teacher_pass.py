"""One look of a teacher at people: crops in, encoded views out, every failure accounted for.

Decoding, warping and the reading of heatmaps run in threads beside the teacher, which so waits for
nobody. It looks at several batches at a time where that keeps the cores busier than one that all of
them share. What is computed does not depend on when, or beside what else, it is.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.ahead import map_ahead
from pipeline.caching.encoded_rows import BadImage, EncodedRows
from pipeline.coco.image_files import resolve_image, sha256_file
from pipeline.coco.people import People
from pipeline.frames.crop_stream import (
    ImageCrops,
    ImageRequest,
    Measure,
    batched_crops,
    requests_by_image,
    stream_crops,
)
from pipeline.teachers.teacher import Teacher
from store_schemas.heatmap_codec import (
    NOT_MEASURED,
    CodecError,
    encode_heatmaps,
    is_measured,
    measure_codec_error,
    sum_codec_errors,
)
from store_schemas.optional_arrays import NONE, OptionalArrays
from store_schemas.profiles import HeatmapProfile
from store_schemas.teacher_store import Status

OnProgress = Callable[[int], None]
"""Told how many views were added."""


def digest_images(
    people: People, image_folder: Path, on_progress: Callable[[int], None] = lambda _: None
) -> NDArray[np.uint8]:
    """Return the sha256 (M, 32) uint8 of every image that people stand in; zeros for the others."""
    digests = np.zeros((len(people.image_id), 32), np.uint8)
    for image in np.unique(people.image_index).tolist():
        path = resolve_image(image_folder, people.image_name[image])
        digests[image] = np.frombuffer(bytes.fromhex(sha256_file(path)), np.uint8)
        on_progress(1)
    return digests


@dataclass(frozen=True)
class _Batch:
    """Crops of one range, and where what is said of them belongs."""

    encoded: EncodedRows
    places: NDArray[np.int64]  # (B, 2) as row and view
    crops: NDArray[np.uint8]  # (B, H, W, 3)


@dataclass(frozen=True)
class TeacherPass:
    """A teacher, the people it looks at, and how what it says is stored."""

    teacher: Teacher
    people: People
    image_folder: Path
    image_to_crop: NDArray[np.float64]  # (N, V, 2, 3), of all people
    image_sha256: NDArray[np.uint8] | None  # (M, 32); None: images are not compared with it
    threshold: float
    """Largest error of heat far from a map's peak."""
    profile: HeatmapProfile
    num_threads: int = 2
    """That decode and warp, and as many that read heatmaps."""
    num_looks: int = 1
    """Batches that the teacher looks at at a time."""
    measure: Measure = lambda _: nullcontext()
    """Of the activities ``decode``, ``warp`` and ``encode``."""
    teacher_at_work: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered for every look."""
    optional: OptionalArrays = NONE
    """What is kept beside heatmaps."""

    def encode(
        self, ranges: Iterable[range], on_progress: OnProgress = lambda _: None
    ) -> Generator[EncodedRows]:
        """Show the teacher all views of people, and yield what it said range by range.

        Batches never leave a range. While the last maps of one are read, the teacher looks at the
        next, whose images are decoded already: ranges are taken a little ahead.
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
            measure=self.measure,
            crop_format=self.optional.crops,
        )
        with (
            closing(images),
            ThreadPoolExecutor(self.num_threads, "encode") as readers,
            ThreadPoolExecutor(self.num_looks, "look") as lookers,
            closing(
                map_ahead(
                    lookers,
                    lambda part: self._look_and_read(part, readers),
                    self._parts(images, begun, on_progress),
                    lookahead=self.num_looks + self.num_threads,
                )
            ) as answers,
        ):
            for answer in answers:
                if isinstance(answer, EncodedRows):
                    yield answer
                    continue
                encoded, reading = answer
                num_views, error = reading.result()
                # in the order of batches, whichever was read first
                encoded.codec_error = sum_codec_errors([encoded.codec_error, error])
                on_progress(num_views)

    def _requests(self, rows: range) -> list[ImageRequest]:
        taken = slice(rows.start, rows.stop)
        return requests_by_image(
            self.people,
            self.image_folder,
            self.people.image_index[taken],
            self.image_to_crop[taken],
            image_sha256=self.image_sha256,
        )

    def _parts(
        self,
        images: Iterator[ImageCrops],
        begun: deque[tuple[range, int]],
        on_progress: OnProgress,
    ) -> Iterator[_Batch | EncodedRows]:
        """Yield the batches of each range, and after them the rows that they are to fill.

        begun: ranges and how many images each has, from the one of the next image on.
        """
        teacher, num_views = self.teacher, self.image_to_crop.shape[1]
        for image in images:
            rows, num_images = begun.popleft()
            encoded = EncodedRows.empty(
                rows,
                num_views,
                teacher.num_keypoints,
                teacher.heatmap_size_hw,
                self.profile.dtype,
                self.optional,
            )
            of_range = chain([image], islice(images, num_images - 1))
            unreadable = partial(self._leave_out, encoded, on_progress)
            for batch in batched_crops(
                _with_stored_crops(of_range, encoded), teacher.settings.batch_size, unreadable
            ):
                yield _Batch(encoded, np.stack([batch.rows, batch.views], axis=1), batch.crops)
            yield encoded

    def _leave_out(self, encoded: EncodedRows, on_progress: OnProgress, image: ImageCrops) -> None:
        """Mark the people of an image that has no crops."""
        rows = image.request.rows
        encoded.status[rows] = Status.IMAGE_UNREADABLE
        ids = tuple(self.people.instance_id[encoded.rows.start + rows].tolist())
        encoded.bad_images.append(BadImage(image.request.path.name, ids, str(image.error)))
        on_progress(len(rows) * encoded.status.shape[1])

    def _look_and_read(
        self, part: _Batch | EncodedRows, readers: Executor
    ) -> tuple[EncodedRows, Future[tuple[int, CodecError]]] | EncodedRows:
        """Look at a batch, and have its maps read; what is no batch is passed on."""
        if isinstance(part, EncodedRows):
            return part
        with self.teacher_at_work():
            heatmaps, tokens = self._look(part.crops)
        for name, values in tokens.items():
            part.encoded.optional[name][part.places[:, 0], part.places[:, 1]] = values
        return part.encoded, readers.submit(self._read, heatmaps, part.places, part.encoded)

    def _look(
        self, crops: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float16]]]:
        """Return heatmaps, and the tokens that are kept, by array."""
        flips = self.people.skeleton.flip_indices
        if self.optional.tokens is None:
            return self.teacher.look(crops, flips), {}
        heatmaps, tokens = self.teacher.look_with_tokens(crops, flips)
        with np.errstate(over="ignore"):  # what is too large is refused before it is written
            kept = {f"{k}_tokens": tokens[k].astype(np.float16) for k in self.optional.tokens.kinds}
        return heatmaps, kept

    def _read(
        self, heatmaps: NDArray[np.float32], places: NDArray[np.int64], encoded: EncodedRows
    ) -> tuple[int, CodecError]:
        """Put what the teacher said of a batch where it belongs; return its size and error."""
        with self.measure("encode"):
            return len(places), self._encode(heatmaps, places[:, 0], places[:, 1], encoded)

    def _encode(
        self,
        heatmaps: NDArray[np.float32],
        rows: NDArray[np.int64],
        views: NDArray[np.int64],
        encoded: EncodedRows,
    ) -> CodecError:
        output = self.teacher.read_out(heatmaps)
        is_finite = np.isfinite(heatmaps).all(axis=(1, 2, 3))
        encoded.status[rows, views] = np.where(is_finite, Status.OK, Status.OUTPUT_NOT_FINITE)
        rows, views, heatmaps = rows[is_finite], views[is_finite], heatmaps[is_finite]
        stored, scale = encode_heatmaps(heatmaps, self.threshold, self.profile)
        encoded.heatmaps[rows, views] = stored
        encoded.outputs[rows, views, :, 0] = scale
        encoded.outputs[rows, views, :, 1] = output.confidences[is_finite]
        encoded.outputs[rows, views, :, 2:] = output.keypoints[is_finite]
        first = encoded.rows.start
        measured = [i for i, row in enumerate(rows.tolist()) if is_measured(first + row)]
        if not measured:
            return NOT_MEASURED
        return measure_codec_error(heatmaps[measured], stored[measured], scale[measured])


def _with_stored_crops(images: Iterable[ImageCrops], encoded: EncodedRows) -> Iterator[ImageCrops]:
    """Yield images, and keep the JPEG files of their crops."""
    for image in images:
        if image.stored is not None:
            encoded.optional["crops"][image.request.rows] = image.stored
        yield image
