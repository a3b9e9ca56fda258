"""Crops of many people, by image and in batches; each image is decoded once, a little ahead."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import (
    decode_image,
    decode_image_bytes,
    read_image_bytes,
    resolve_image,
)
from pipeline.coco.people import People
from pipeline.errors import ImageError
from pipeline.frames.crops import central_part, jpeg_round_trip, warp_crop
from pipeline.frames.geometry import SizeHW, compose, crop_to_wide_crop
from pipeline.machine import map_ahead
from store_schemas.formats import CropFormat

Measure = Callable[[str], AbstractContextManager[None]]
"""Returns a context whose CPU time counts for the activity of that name."""


@dataclass(frozen=True)
class ImageRequest:
    """The crops to cut out of one image."""

    path: Path
    rows: NDArray[np.int64]  # (J,), row of each person in the caller's numbering
    image_to_crop: NDArray[np.float64]  # (J, ..., 2, 3)
    sha256: bytes | None = None
    """Digest that the file must have; None: any file is taken."""


@dataclass(frozen=True)
class ImageCrops:
    """The crops of one image, or the error because of which there are none."""

    request: ImageRequest
    crops: NDArray[np.uint8] | None  # (J, ..., H, W, 3)
    error: ImageError | None = None
    stored: NDArray[np.object_] | None = None
    """(J, ...), the JPEG of each crop with its margin, (n,) uint8."""


class CropBatch(NamedTuple):
    """Crops of several images."""

    rows: NDArray[np.int64]  # (B,), as the requests number their people
    views: NDArray[np.int64]  # (B,), 0 where a request has one crop for each row
    crops: NDArray[np.uint8]  # (B, H, W, 3)


def requests_by_image(
    people: People,
    image_folder: Path,
    image_index: NDArray[np.int64],
    image_to_crop: NDArray[np.float64],
    rows: NDArray[np.int64] | None = None,
    image_sha256: NDArray[np.uint8] | None = None,
) -> list[ImageRequest]:
    """Group views by image, in the order of the images.

    image_index: (P,), the image of each row.
    image_to_crop: (P, ..., 2, 3), the views of each row.
    rows: (P,), numbers of the rows; None: 0 to P-1.
    image_sha256: (M, 32) uint8, digest that the file of each image must have; None: not compared.
    """
    names = np.arange(len(image_index)) if rows is None else rows
    order = np.argsort(image_index, kind="stable")
    images, starts = np.unique(image_index[order], return_index=True)
    return [
        ImageRequest(
            resolve_image(image_folder, people.image_name[image]),
            names[group],
            image_to_crop[group],
            None if image_sha256 is None else image_sha256[image].tobytes(),
        )
        for image, group in zip(images.tolist(), np.split(order, starts)[1:], strict=True)
    ]


def stream_crops(
    requests: Iterable[ImageRequest],
    crop_size_hw: SizeHW,
    decode: Callable[[Path], NDArray[np.uint8]] = decode_image,
    num_threads: int = 2,
    measure: Measure = lambda _: nullcontext(),
    crop_format: CropFormat | None = None,
) -> Generator[ImageCrops]:
    """Yield the crops of each request, in order, decoding at most a few images ahead.

    requests: iterated a few items ahead too, by the thread that consumes the crops.
    decode: reads one image as (H, W, 3) uint8 RGB, or raises ImageError; not called for a request
        with a digest.
    measure: called for the activities ``decode``, ``warp`` and, with a ``crop_format``, ``encode``.
    crop_format: format in which crops are stored; those yielded are then the central parts of
        the decoded ones.
    """

    def read(path: Path, planned: bytes | None) -> NDArray[np.uint8]:
        if planned is None:
            return decode(path)
        file = read_image_bytes(path)
        if (found := file.sha256) != planned:  # compared over the very bytes that are decoded
            raise ImageError(
                f"image {str(path)!r} has changed since the plan: expected sha256 "
                f"{planned.hex()[:16]}, got {found.hex()[:16]}; put the old file back, or accept "
                f"this one with --resume --accept-mended-images"
            )
        return decode_image_bytes(file.content, path)

    def cut(request: ImageRequest) -> ImageCrops:
        try:
            with measure("decode"):
                image = read(request.path, request.sha256)
        except ImageError as error:
            return ImageCrops(request, None, error)
        leading = request.image_to_crop.shape[:-2]
        crops = np.empty((*leading, *crop_size_hw, 3), np.uint8)
        if crop_format is None:
            with measure("warp"):
                for view in np.ndindex(leading):
                    crops[view] = warp_crop(image, request.image_to_crop[view], crop_size_hw)
            return ImageCrops(request, crops)
        margin_hw = crop_format.margin_hw
        image_to_wide_crop = compose(crop_to_wide_crop(margin_hw), request.image_to_crop)
        wide_size_hw = crop_format.stored_size_hw(crop_size_hw)
        stored = np.empty(leading, np.object_)
        for view in np.ndindex(leading):
            with measure("warp"):
                wide_crop = warp_crop(image, image_to_wide_crop[view], wide_size_hw)
            with measure("encode"):
                decoded, stored[view] = jpeg_round_trip(wide_crop, crop_format)
            crops[view] = central_part(decoded, margin_hw)
        return ImageCrops(request, crops, stored=stored)

    with ThreadPoolExecutor(num_threads, "decode") as pool:
        yield from map_ahead(pool, cut, requests, lookahead=4 * num_threads)


def batched_crops(
    images: Iterable[ImageCrops],
    batch_size: int,
    on_unreadable: Callable[[ImageCrops], None] | None = None,
) -> Iterator[CropBatch]:
    """Gather crops across images into batches of one size; the last one may be smaller.

    images: their crops are (J, H, W, 3) or (J, V, H, W, 3), in the order of the batches' crops.
    on_unreadable: called with each image that has no crops; None: its error is raised.

    Raises:
        ImageError: an image has no crops, and there is no ``on_unreadable``.
    """
    places: list[tuple[int, int]] = []
    crops: list[NDArray[np.uint8]] = []

    def take(count: int) -> CropBatch:
        rows, views = np.array(places[:count]).T
        batch = CropBatch(rows, views, np.stack(crops[:count]))
        del places[:count], crops[:count]
        return batch

    for image in images:
        if image.crops is None:
            if on_unreadable is None:
                raise image.error or ImageError(f"image {str(image.request.path)!r} has no crops")
            on_unreadable(image)
            continue
        for row, of_row in zip(image.request.rows.tolist(), image.crops, strict=True):
            views = of_row.reshape(-1, *of_row.shape[-3:])
            places += [(row, view) for view in range(len(views))]
            crops += list(views)
        while len(places) >= batch_size:
            yield take(batch_size)
    if places:
        yield take(len(places))
