"""A teacher's live heatmaps of some people's views, a batch at a time, never all in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.errors import ImageError
from pipeline.frames.crop_stream import requests_by_image, stream_crops
from pipeline.teachers.teacher import Teacher


@dataclass(frozen=True)
class MapBatch:
    """Live heatmaps of some views."""

    places: NDArray[np.int64]  # (B, 2) as place in the list of people, view
    heatmaps: NDArray[np.float32]  # (B, K, Hh, Wh)


def stream_teacher_maps(
    teacher: Teacher,
    people: People,
    image_folder: Path,
    rows: NDArray[np.int64],
    image_to_crop: NDArray[np.float64],
) -> Iterator[MapBatch]:
    """Show the teacher all views of some people and yield its maps in its batch size.

    rows: (P,), the people; ``places`` count along it.
    image_to_crop: (P, V, 2, 3), their views.

    Raises:
        ImageError: an image cannot be decoded whole.
    """
    batch_size = teacher.settings.batch_size
    places: list[tuple[int, int]] = []
    crops: list[NDArray[np.uint8]] = []
    requests = requests_by_image(people, image_folder, people.image_index[rows], image_to_crop)
    for image in stream_crops(requests, teacher.input_size_hw):
        if image.crops is None:
            raise image.error or ImageError(f"{image.request.path}: no crops and no reason")
        for place, views in zip(image.request.rows.tolist(), image.crops, strict=True):
            places += [(place, view) for view in range(len(views))]
            crops += list(views)
        while len(places) >= batch_size:
            yield _look(teacher, people, places[:batch_size], crops[:batch_size])
            del places[:batch_size], crops[:batch_size]
    if places:
        yield _look(teacher, people, places, crops)


def _look(
    teacher: Teacher,
    people: People,
    places: list[tuple[int, int]],
    crops: list[NDArray[np.uint8]],
) -> MapBatch:
    seen = teacher.observe(np.stack(crops), people.skeleton.flip_indices)
    return MapBatch(np.array(places), seen.heatmaps)
