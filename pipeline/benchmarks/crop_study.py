"""What keeping crops as JPEG changes for a teacher: its AP, its keypoints, and the bytes of a view.

Every way is shown the very same crops, batch by batch, so that the differences are paired.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.benchmarks.fidelity import DecodedPoints, Poses, StudiedPeople, measure_poses
from pipeline.errors import ImageError
from pipeline.frames.crop_stream import requests_by_image, stream_crops
from pipeline.frames.stored_crops import decode_crop, encode_crop
from pipeline.teachers.teacher import Teacher
from store_schemas.choices import SUBSAMPLINGS
from store_schemas.optional_arrays import CropFormat, crop_format

QUALITIES = (75, 85, 90, 95)


@dataclass(frozen=True)
class CropFigures:
    """One way to keep crops, measured on view 0."""

    name: str
    bytes_per_view: float
    """Of the JPEG alone; lossless: of the pixels."""
    ap: float | None
    mean_oks: float
    mean_oks_change: float
    """Mean over people of the absolute difference from the lossless crop."""
    median_shift: float
    """Of the keypoints that DARK decodes, heatmap cells."""
    encode_ms: float
    decode_ms: float
    """Processor time of one crop."""


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

    def see(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what is left of crops (B, H, W, 3), and note what it took."""
        if self.crops is None:
            self.num_bytes += crops.nbytes
            return crops
        started = time.thread_time()
        files = [encode_crop(crop, self.crops) for crop in crops]
        encoded = time.thread_time()
        height, width = crops.shape[1:3]
        seen = np.stack([decode_crop(file, (height, width)) for file in files])
        self.seconds["encode"] += encoded - started
        self.seconds["decode"] += time.thread_time() - encoded
        self.num_bytes += sum(len(file) for file in files)
        return seen


def study_crops(
    teacher: Teacher,
    studied: StudiedPeople,
    image_folder: Path,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[CropFigures]:
    """Show a teacher the crops of view 0 as they are and as JPEG in every shipped way.

    on_progress: told how many more people were looked at.

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
    for rows, crops in _batches(teacher, studied, image_folder):
        places = np.stack([rows, np.zeros_like(rows)], axis=1)
        for way in ways:
            way.decoded.add(places, teacher.look(way.see(crops), flips))
        on_progress(len(rows))
    lossless = measure_poses(studied, ways[0].decoded)
    return [_figures(way, studied, ways[0].decoded, lossless) for way in ways]


def _batches(
    teacher: Teacher, studied: StudiedPeople, image_folder: Path
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Yield rows (B,) and lossless crops (B, H, W, 3), in the teacher's batch size."""
    people, size = studied.people, teacher.settings.batch_size
    views = studied.image_to_crop[:, 0]
    rows: list[int] = []
    crops: list[NDArray[np.uint8]] = []
    for image in stream_crops(
        requests_by_image(people, image_folder, people.image_index, views), teacher.input_size_hw
    ):
        if image.crops is None:
            raise image.error or ImageError(f"{image.request.path}: no crops and no reason")
        rows += image.request.rows.tolist()
        crops += list(image.crops)
        while len(rows) >= size:
            yield np.array(rows[:size]), np.stack(crops[:size])
            del rows[:size], crops[:size]
    if rows:
        yield np.array(rows), np.stack(crops)


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
