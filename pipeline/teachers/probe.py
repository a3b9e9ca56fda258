"""The probe: crops of a few people, and a teacher's heatmaps of them, before a store is begun.

``checks.py`` and ``accuracy.py`` find wrong settings on it.
"""

import time
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
from store_schemas.formats import HeatmapProfile
from store_schemas.heatmap_codec import quantise_heatmaps


@dataclass(frozen=True)
class Probe:
    """The evaluation crops of a few people, and the teacher's heatmaps of them, unflipped."""

    rows: NDArray[np.int64]  # (B,)
    crops: NDArray[np.uint8]  # (B, H, W, 3)
    heatmaps: NDArray[np.float32]  # (B, K, Hh, Wh)
    image_to_crop: NDArray[np.float64]  # (B, 2, 3)
    augmented_crops: NDArray[np.uint8] | None = None  # (B, H, W, 3), of an augmented view each
    augmented_image_to_crop: NDArray[np.float64] | None = None  # (B, 2, 3)
    seconds: float = 0.0
    """Time of taking it."""


def probe_rows(people: People, num_people: int) -> NDArray[np.int64]:
    """Return ``num_people`` rows, fewer where there are fewer, spread over all people; ascending.

    Where some are labelled and some are not, they are spread over the labelled ones, as accuracy is
    measured on them alone, and a quarter more over all people.
    """
    labelled = np.flatnonzero(people.has_labels)
    if people.num_instances <= num_people or len(labelled) in (0, people.num_instances):
        return spread_rows(people.num_instances, num_people)
    everywhere = spread_rows(people.num_instances, -(-num_people // 4))
    return np.union1d(labelled[spread_rows(len(labelled), num_people)], everywhere)


def take_probe(
    teacher: Teacher,
    people: People,
    image_folder: Path,
    image_to_crop: NDArray[np.float64],
    num_people: int = PROBE_PEOPLE,
) -> Probe:
    """Predict view 0 of the people of ``probe_rows``; unreadable images are left out.

    image_to_crop: (N, V, 2, 3). Where V > 1, every person's crop of an augmented view is taken too,
        and not predicted yet.

    Raises:
        TeacherError: no image of the probe can be read.
    """
    began = time.perf_counter()
    rows = probe_rows(people, num_people)
    num_augmented = image_to_crop.shape[1] - 1
    plain = image_to_crop[rows, 0]
    turn = 1 + np.arange(len(rows)) % max(num_augmented, 1)
    views = np.stack([plain, image_to_crop[rows, turn] if num_augmented else plain], axis=1)
    num_views = 2 if num_augmented else 1
    requests = requests_by_image(
        people, image_folder, people.image_index[rows], views[:, :num_views], np.arange(len(rows))
    )
    images = list(stream_crops(requests, teacher.input_size_hw))
    readable = [image for image in images if image.crops is not None]
    if not readable:
        raise TeacherError(
            f"of the probe's {counted(len(images), 'image')} none can be read: {images[0].error}"
        )
    crops = np.concatenate([image.crops for image in readable if image.crops is not None])
    kept = np.concatenate([image.request.rows for image in readable])
    plain_crops = np.ascontiguousarray(crops[:, 0])
    return Probe(
        rows[kept],
        plain_crops,
        teacher.predict_heatmaps(plain_crops),
        views[kept, 0],
        crops[:, 1] if num_augmented else None,
        views[kept, 1] if num_augmented else None,
        time.perf_counter() - began,
    )


def measure_bytes_per_view(probe: Probe, threshold: float, profile: HeatmapProfile) -> float:
    """Encode the probe's heatmaps, and return the mean bytes of a view on disk."""
    stored, _ = quantise_heatmaps(probe.heatmaps, threshold, profile)
    blosc = get_codec({"id": "blosc", **profile.blosc_of_numcodecs()})
    compressed = float(np.mean([len(blosc.encode(view)) for view in stored]))
    index_and_checksum, outputs, checksum_and_status = 16 + 4, 16 * stored.shape[1], 4 + 1
    return compressed + index_and_checksum + outputs + checksum_and_status
