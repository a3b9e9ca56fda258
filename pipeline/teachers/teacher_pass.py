"""One look of a teacher at people: crops in, encoded views out, every failure accounted for.

Decoding, warping and the reading of heatmaps run in threads beside the teacher, which so waits for
nobody; what they compute does not depend on when they do it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import resolve_image, sha256_file
from pipeline.coco.people import People
from pipeline.errors import ImageError
from pipeline.frames.crop_stream import (
    ImageCrops,
    ImageRequest,
    Measure,
    requests_by_image,
    stream_crops,
)
from pipeline.frames.geometry import SizeHW
from pipeline.teachers.teacher import Teacher
from pipeline.wording import counted
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


def describe_bad_images(bad_images: list[BadImage]) -> str:
    """Say how many images and people are concerned, and name the first few."""
    people = counted(sum(len(bad.instance_ids) for bad in bad_images), "person")
    return (
        f"{counted(len(bad_images), 'image')} with {people} could not be decoded: "
        f"{'; '.join(bad.reason for bad in bad_images[:5])}{'; ...' if bad_images[5:] else ''}"
    )


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
    measure: Measure = lambda _: nullcontext()
    """Of the activities ``decode``, ``warp`` and ``encode``."""
    teacher_at_work: Callable[[], AbstractContextManager[None]] = nullcontext
    optional: OptionalArrays = NONE
    """What is kept beside heatmaps."""

    def encode(
        self, ranges: Iterable[range], on_progress: OnProgress = lambda _: None
    ) -> Generator[EncodedRows]:
        """Show the teacher all views of people, and yield what it said range by range.

        Batches never leave a range. Images of the next ranges are decoded while the teacher looks
        at this one, so ranges are taken a little ahead.
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
        with closing(images), ThreadPoolExecutor(self.num_threads, "encode") as pool:
            for image in images:
                rows, num_images = begun.popleft()
                of_these = chain([image], islice(images, num_images - 1))
                yield self._encode_range(rows, of_these, pool, on_progress)

    def _requests(self, rows: range) -> list[ImageRequest]:
        taken = slice(rows.start, rows.stop)
        return requests_by_image(
            self.people,
            self.image_folder,
            self.people.image_index[taken],
            self.image_to_crop[taken],
            image_sha256=self.image_sha256,
        )

    def _encode_range(
        self,
        rows: range,
        images: Iterator[ImageCrops],
        pool: ThreadPoolExecutor,
        on_progress: OnProgress,
    ) -> EncodedRows:
        """Look at the crops of one range; its maps are read in the pool, a few batches behind."""
        teacher, num_views = self.teacher, self.image_to_crop.shape[1]
        encoded = EncodedRows.empty(
            rows,
            num_views,
            teacher.num_keypoints,
            teacher.heatmap_size_hw,
            self.profile.dtype,
            self.optional,
        )
        behind: deque[Future[tuple[int, CodecError]]] = deque()

        def on_bad_image(request: ImageRequest, error: ImageError) -> None:
            encoded.status[request.rows] = Status.IMAGE_UNREADABLE
            ids = tuple(self.people.instance_id[rows.start + request.rows].tolist())
            encoded.bad_images.append(BadImage(request.path.name, ids, str(error)))
            on_progress(len(request.rows) * num_views)

        errors: list[CodecError] = []
        kept = (_keep_crops(image, encoded) for image in images)
        for places, crops in _batches(kept, teacher.settings.batch_size, on_bad_image):
            with self.teacher_at_work():
                heatmaps, tokens = self._look(crops)
            for name, values in tokens.items():
                encoded.optional[name][places[:, 0], places[:, 1]] = values
            behind.append(pool.submit(self._read, heatmaps, places, encoded))
            if len(behind) > self.num_threads:
                _collect(behind, errors, on_progress)
        while behind:
            _collect(behind, errors, on_progress)
        encoded.codec_error = sum_codec_errors(errors)
        return encoded

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


def _keep_crops(image: ImageCrops, encoded: EncodedRows) -> ImageCrops:
    if image.stored is not None:
        encoded.optional["crops"][image.request.rows] = image.stored
    return image


def _collect(
    behind: deque[Future[tuple[int, CodecError]]],
    errors: list[CodecError],
    on_progress: OnProgress,
) -> None:
    """Wait for the oldest batch: errors are added up in the order of batches, whoever was first."""
    num_views, error = behind.popleft().result()
    errors.append(error)
    on_progress(num_views)


def _batches(
    images: Iterator[ImageCrops],
    batch_size: int,
    on_bad_image: Callable[[ImageRequest, ImageError], None],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Yield (places (B, 2) as row and view, crops (B, H, W, 3)) of one size, the last less."""
    places: list[tuple[int, int]] = []
    crops: list[NDArray[np.uint8]] = []
    for image in images:
        if image.crops is None:
            on_bad_image(image.request, image.error or ImageError("no crops and no reason"))
            continue
        for row, views in zip(image.request.rows.tolist(), image.crops, strict=True):
            places += [(row, view) for view in range(len(views))]
            crops += list(views)
        while len(places) >= batch_size:
            yield np.array(places[:batch_size]), np.stack(crops[:batch_size])
            del places[:batch_size], crops[:batch_size]
    if places:
        yield np.array(places), np.stack(crops)
