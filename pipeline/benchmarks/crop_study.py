"""What keeping crops as JPEG changes for a teacher: its AP, its keypoints, and the bytes of a view.

The very same crops go through every way, batch by batch, so that the differences are paired.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.benchmarks.fidelity import (
    DecodedPoints,
    Poses,
    StudiedPeople,
    measure_poses,
    stream_crop_batches,
)
from pipeline.benchmarks.processes import CropLoading
from pipeline.frames.crops import decode_crop, encode_crop
from pipeline.teachers.teacher import Teacher
from store_schemas.choices import SUBSAMPLINGS
from store_schemas.formats import CropFormat, crop_format

QUALITIES = (75, 85, 90, 95)


@dataclass(frozen=True)
class CropFigures:
    """One way to keep crops, measured on view 0."""

    name: str
    bytes_per_view: float
    """Bytes of the JPEG file alone; for lossless crops, bytes of the pixels."""
    ap: float | None
    mean_oks: float
    mean_oks_change: float
    """Absolute difference from the lossless crop, mean over people."""
    median_shift: float
    """Shift of the keypoints that DARK decodes, heatmap cells."""
    encode_ms: float
    """Processor time to encode one crop."""
    decode_ms: float


@dataclass(frozen=True)
class CropStudy:
    """Figures of a study."""

    num_people: int
    figures: list[CropFigures]
    loading: CropLoading | None
    """Cost of loading batches of a store; None without a store."""


@dataclass
class _Way:
    crops: CropFormat | None
    decoded: DecodedPoints
    num_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"encode": 0.0, "decode": 0.0})

    @property
    def name(self) -> str:
        crops = self.crops
        return "lossless" if crops is None else f"q{crops.quality} {crops.subsampling}"

    def encode_and_decode(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return crops (B, H, W, 3) as they are after this way, and add up bytes and times."""
        if self.crops is None:
            self.num_bytes += crops.nbytes
            return crops
        started = time.thread_time()
        files = [encode_crop(crop, self.crops) for crop in crops]
        encoded = time.thread_time()
        height, width = crops.shape[1:3]
        decoded = np.stack([decode_crop(file, (height, width)) for file in files])
        self.seconds["encode"] += encoded - started
        self.seconds["decode"] += time.thread_time() - encoded
        self.num_bytes += sum(len(file) for file in files)
        return decoded


def study_crops(
    teacher: Teacher,
    studied: StudiedPeople,
    image_folder: Path,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[CropFigures]:
    """Predict heatmaps of the crops of view 0 as they are, and as JPEG in every shipped way.

    studied: people with view 0 alone.
    on_progress: called with the number of people that were added.

    Raises:
        ImageError: an image cannot be decoded whole.
    """
    formats = [
        crop_format(teacher.input_size_hw, quality, subsampling)
        for subsampling in SUBSAMPLINGS
        for quality in QUALITIES
    ]
    ways = [_Way(crops, DecodedPoints.empty(studied)) for crops in (None, *formats)]
    flips = studied.people.skeleton.flip_indices
    batch_size = teacher.settings.batch_size
    for rows, views, crops in stream_crop_batches(studied, image_folder, batch_size):
        places = np.stack([rows, views], axis=1)
        for way in ways:
            way.decoded.add(places, teacher.predict(way.encode_and_decode(crops), flips).heatmaps)
        on_progress(len(places))
    lossless = measure_poses(studied, ways[0].decoded)
    return [_figures(way, studied, ways[0].decoded, lossless) for way in ways]


def _figures(
    way: _Way, studied: StudiedPeople, live: DecodedPoints, lossless: Poses
) -> CropFigures:
    count = studied.people.num_instances
    poses = measure_poses(studied, way.decoded)
    shifts = np.linalg.norm(way.decoded.points[:, 0] - live.points[:, 0], axis=-1)
    is_labelled = studied.people.is_labelled
    return CropFigures(
        name=way.name,
        bytes_per_view=way.num_bytes / count,
        ap=poses.ap,
        mean_oks=float(np.nanmean(poses.oks)),
        mean_oks_change=float(np.nanmean(np.abs(poses.oks - lossless.oks))),
        median_shift=float(np.median(shifts[is_labelled])),
        encode_ms=1e3 * way.seconds["encode"] / count,
        decode_ms=1e3 * way.seconds["decode"] / count,
    )
