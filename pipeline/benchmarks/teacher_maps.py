"""A teacher's live heatmaps of some people's views, a batch at a time, never all in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.frames.crop_stream import batched_crops, requests_by_image, stream_crops
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
    requests = requests_by_image(people, image_folder, people.image_index[rows], image_to_crop)
    images = stream_crops(requests, teacher.input_size_hw)
    for places, views, crops in batched_crops(images, teacher.settings.batch_size):
        output = teacher.observe(crops, people.skeleton.flip_indices)
        yield MapBatch(np.stack([places, views], axis=1), output.heatmaps)
