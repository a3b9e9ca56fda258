"""The probe: a few people on whom a teacher's checks, and the size of a store, are measured."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numcodecs import get_codec
from numpy.typing import NDArray

from pipeline.coco.people import People, spread_rows
from pipeline.errors import TeacherError
from pipeline.frames.crop_stream import requests_by_image, stream_crops
from pipeline.settings import PROBE_PEOPLE
from pipeline.teachers.teacher import Teacher
from pipeline.wording import counted
from store_schemas.heatmap_codec import encode_heatmaps
from store_schemas.profiles import HeatmapProfile


@dataclass(frozen=True)
class Probe:
    """The evaluation crops of a few people, and the teacher's heatmaps of them, unflipped."""

    rows: NDArray[np.int64]  # (B,)
    crops: NDArray[np.uint8]  # (B, H, W, 3)
    heatmaps: NDArray[np.float32]  # (B, K, Hh, Wh)
    image_to_crop: NDArray[np.float64]  # (B, 2, 3)


def take_probe(
    teacher: Teacher,
    people: People,
    image_folder: Path,
    image_to_crop: NDArray[np.float64],
    num_people: int = PROBE_PEOPLE,
) -> Probe:
    """Predict view 0 of people spread evenly over all; unreadable images are left out.

    image_to_crop: (N, V, 2, 3).

    Raises:
        TeacherError: no image of the probe can be read.
    """
    rows = spread_rows(people.num_instances, num_people)
    requests = requests_by_image(
        people, image_folder, people.image_index[rows], image_to_crop[rows, 0], rows
    )
    images = list(stream_crops(requests, teacher.input_size_hw))
    readable = [image for image in images if image.crops is not None]
    if not readable:
        raise TeacherError(
            f"of the probe's {counted(len(images), 'image')} none can be read: {images[0].error}"
        )
    crops = np.concatenate([image.crops for image in readable if image.crops is not None])
    kept = np.concatenate([image.request.rows for image in readable])
    return Probe(kept, crops, teacher.predict_heatmaps(crops), image_to_crop[kept, 0])


def measure_bytes_per_view(probe: Probe, threshold: float, profile: HeatmapProfile) -> float:
    """Encode the probe's heatmaps, and return the mean bytes of a view on disk."""
    stored, _ = encode_heatmaps(probe.heatmaps, threshold, profile)
    blosc = get_codec({"id": "blosc", **profile.blosc_of_numcodecs()})
    compressed = float(np.mean([len(blosc.encode(view)) for view in stored]))
    index_and_checksum, outputs, checksum_and_status = 16 + 4, 16 * stored.shape[1], 4 + 1
    return compressed + index_and_checksum + outputs + checksum_and_status
