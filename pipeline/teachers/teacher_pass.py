"""One look of a teacher at people: crops in, encoded views out, every failure accounted for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import decode_image, resolve_image, sha256_file
from pipeline.coco.people import People
from pipeline.errors import ImageError
from pipeline.frames.crop_stream import ImageRequest, requests_by_image, stream_crops
from pipeline.teachers.teacher import Teacher, TeacherOutput
from store_schemas.heatmap_codec import (
    NOT_MEASURED,
    CodecError,
    encode_heatmaps,
    is_measured,
    measure_codec_error,
    sum_codec_errors,
)
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

    heatmaps: NDArray[Any]  # (n, V, K, Hh, Wh) uint8 or float16
    outputs: NDArray[np.float32]  # (n, V, K, 4) as scale, confidence, x, y; crop pixels
    status: NDArray[np.uint8]  # (n, V)
    bad_images: list[BadImage] = field(default_factory=list)
    codec_error: CodecError = NOT_MEASURED


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
    people = sum(len(bad.instance_ids) for bad in bad_images)
    return (
        f"{len(bad_images)} image(s) with {people} people could not be decoded: "
        f"{'; '.join(bad.reason for bad in bad_images[:5])}{'; ...' if bad_images[5:] else ''}"
    )


def encode_rows(
    teacher: Teacher,
    people: People,
    image_folder: Path,
    image_to_crop: NDArray[np.float64],
    rows: range,
    threshold: float,
    dtype: str,
    on_progress: Callable[[int], None] = lambda _: None,
) -> EncodedRows:
    """Show a teacher all views of some people, in batches that never leave these rows.

    image_to_crop: (N, V, 2, 3), of all people.
    rows: the people.
    threshold: heat below it is stored as 0.
    dtype: of the stored heatmaps, uint8 or float16.
    on_progress: told how many views were added.
    """
    num_views, num_keypoints = image_to_crop.shape[1], teacher.num_keypoints
    shape = (len(rows), num_views)
    encoded = EncodedRows(
        np.zeros((*shape, num_keypoints, *teacher.heatmap_size_hw), dtype),
        np.full((*shape, num_keypoints, 4), np.nan, np.float32),
        np.full(shape, Status.NOT_WRITTEN, np.uint8),
    )
    requests = requests_by_image(
        people, image_folder, people.image_index[rows.start : rows.stop],
        image_to_crop[rows.start : rows.stop],
    )  # fmt: skip

    def on_bad_image(request: ImageRequest, error: ImageError) -> None:
        encoded.status[request.rows] = Status.IMAGE_UNREADABLE
        ids = tuple(people.instance_id[rows.start + request.rows].tolist())
        encoded.bad_images.append(BadImage(request.path.name, ids, str(error)))
        on_progress(len(request.rows) * num_views)

    for places, crops in _batches(requests, teacher, on_bad_image):
        output = teacher.observe(crops, people.skeleton.flip_indices)
        _encode(output, threshold, encoded, rows.start, places[:, 0], places[:, 1])
        on_progress(len(places))
    return encoded


def _encode(
    output: TeacherOutput,
    threshold: float,
    encoded: EncodedRows,
    first_row: int,
    rows: NDArray[np.int64],
    views: NDArray[np.int64],
) -> None:
    is_finite = np.isfinite(output.heatmaps).all(axis=(1, 2, 3))
    encoded.status[rows, views] = np.where(is_finite, Status.OK, Status.OUTPUT_NOT_FINITE)
    rows, views, heatmaps = rows[is_finite], views[is_finite], output.heatmaps[is_finite]
    stored, scale = encode_heatmaps(heatmaps, threshold, encoded.heatmaps.dtype.name)
    encoded.heatmaps[rows, views] = stored
    encoded.outputs[rows, views, :, 0] = scale
    encoded.outputs[rows, views, :, 1] = output.confidences[is_finite]
    encoded.outputs[rows, views, :, 2:] = output.keypoints[is_finite]
    measured = [i for i, row in enumerate(rows.tolist()) if is_measured(first_row + row)]
    if measured:
        error = measure_codec_error(heatmaps[measured], stored[measured], scale[measured])
        encoded.codec_error = sum_codec_errors([encoded.codec_error, error])


def _batches(
    requests: list[ImageRequest],
    teacher: Teacher,
    on_bad_image: Callable[[ImageRequest, ImageError], None],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Yield (places (B, 2) as row and view, crops (B, H, W, 3)) in the teacher's batch size."""
    batch_size = teacher.settings.batch_size
    places: list[tuple[int, int]] = []
    crops: list[NDArray[np.uint8]] = []
    for image in stream_crops(requests, teacher.input_size_hw, decode_image):
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
