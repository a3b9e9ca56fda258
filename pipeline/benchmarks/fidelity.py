"""People of a study, a teacher's heatmaps of them, and what storing these changes.

What changes: heat, the points that DARK decodes, OKS and AP. Live maps and stored ones go through
the same decoder. A shift is the distance between the two points of a map, in heatmap cells; OKS
and AP are those of view 0 alone, the evaluation crop.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People, people_of_rows
from pipeline.coco.poses import PosePredictions, ScoreRule, coco_results
from pipeline.evaluation.coco_evaluation import evaluate_results
from pipeline.evaluation.localisation import measure_localisation
from pipeline.frames.crop_stream import CropBatch, batched_crops, requests_by_image, stream_crops
from pipeline.frames.geometry import SizeHW, apply, compose, invert, padded_box_size
from pipeline.frames.heatmaps import decode_heatmaps as decode_points
from pipeline.frames.views import draw_views
from pipeline.prediction.pose_scores import instance_scores
from pipeline.settings import ViewRecipe
from pipeline.teachers import Teacher
from store_schemas.heatmap_codec import dequantise_heatmaps


@dataclass(frozen=True)
class StudiedPeople:
    """The people of a study, and where their views lie."""

    people: People
    """These P people alone, in their order, with the images they stand in."""
    image_to_crop: NDArray[np.float64]  # (P, V, 2, 3)
    crop_to_heatmap: NDArray[np.float64]  # (2, 3)
    input_size_hw: SizeHW
    padding: float

    @property
    def num_views(self) -> int:
        return self.image_to_crop.shape[1]


@dataclass(frozen=True)
class MapBatch:
    """Live heatmaps of some views."""

    places: NDArray[np.int64]  # (B, 2) as person, view
    heatmaps: NDArray[np.float32]  # (B, K, Hh, Wh)


def study_people(
    people: People,
    rows: NDArray[np.int64],
    teacher: Teacher,
    recipe: ViewRecipe,
    seed: int = 0,
    num_views: int = 0,
) -> StudiedPeople:
    """Choose people, and draw the views of them that the teacher is to predict.

    rows: (P,), the chosen people.
    num_views: augmented views, beside the plain crop.
    """
    chosen = people_of_rows(people, rows)
    size_hw = teacher.input_size_hw
    views = draw_views(chosen, recipe, seed, num_views, size_hw).image_to_crop
    return StudiedPeople(chosen, views, teacher.crop_to_heatmap, size_hw, recipe.padding)


def stream_crop_batches(
    studied: StudiedPeople, image_folder: Path, batch_size: int
) -> Iterator[CropBatch]:
    """Yield the crops of all views; their rows are places in the list of people.

    Raises:
        ImageError: an image cannot be decoded whole.
    """
    people = studied.people
    requests = requests_by_image(people, image_folder, people.image_index, studied.image_to_crop)
    yield from batched_crops(stream_crops(requests, studied.input_size_hw), batch_size)


def stream_teacher_maps(
    teacher: Teacher, studied: StudiedPeople, image_folder: Path
) -> Iterator[MapBatch]:
    """Yield the teacher's heatmaps of all views in its batch size, never all in memory.

    Raises:
        ImageError: an image cannot be decoded whole.
    """
    flips = studied.people.skeleton.flip_indices
    batch_size = teacher.settings.batch_size
    for rows, views, crops in stream_crop_batches(studied, image_folder, batch_size):
        yield MapBatch(np.stack([rows, views], axis=1), teacher.predict(crops, flips).heatmaps)


@dataclass(frozen=True)
class Shifts:
    """Distances between live and stored points, in heatmap cells."""

    mean: float
    p99: float
    largest: float

    @classmethod
    def of(cls, distances: NDArray[np.float64]) -> "Shifts | None":
        """Summarise distances of any shape; None where there are none."""
        if not distances.size:
            return None
        return cls(
            float(distances.mean()), float(np.percentile(distances, 99)), float(distances.max())
        )


@dataclass(frozen=True)
class PoseChange:
    """Poses of view 0 decoded from stored maps, against those from live maps."""

    num_people: int
    live_ap: float | None
    stored_ap: float | None
    mean_oks_change: float
    """Mean over people of the absolute difference."""
    largest_oks_change: float


@dataclass(frozen=True)
class Fidelity:
    """What one quantisation changes."""

    rms_error: float
    """Root mean square error against max(live heat, 0) for uint8, against live heat for float16."""
    largest_error: float
    all_keypoints: Shifts
    """Shifts in every map of every view, those of invisible keypoints too."""
    labelled_keypoints: Shifts | None
    """Shifts in the maps of view 0 whose keypoint is labelled."""
    poses: PoseChange


@dataclass
class DecodedPoints:
    """Points and peaks of all maps, filled a batch at a time."""

    points: NDArray[np.float64]  # (P, V, K, 2), heatmap frame; NaN: not filled
    peaks: NDArray[np.float64]  # (P, V, K)

    @classmethod
    def empty(cls, studied: StudiedPeople) -> "DecodedPoints":
        shape = (*studied.image_to_crop.shape[:2], studied.people.skeleton.num_keypoints)
        return cls(np.full((*shape, 2), np.nan), np.full(shape, np.nan))

    def add(self, places: NDArray[np.int64], heatmaps: NDArray[np.float32]) -> None:
        """Decode a batch; places: (B, 2) as person, view."""
        where = places[:, 0], places[:, 1]
        self.points[where], self.peaks[where] = decode_points(heatmaps, "dark")

    def require_every_view(self) -> None:
        """Raise ValueError while views are missing."""
        num_missing = int(np.isnan(self.peaks).any(axis=2).sum())
        if num_missing or not self.peaks.size:
            raise ValueError(f"expected the maps of every view, {num_missing} are missing")


@dataclass
class FidelityMeter:
    """Adds up what one quantisation changes in the maps of a study."""

    decoded: DecodedPoints
    _squares: float = 0.0
    _num_values: int = 0
    _largest: float = 0.0

    def add(
        self,
        places: NDArray[np.int64],
        heatmaps: NDArray[np.float32],
        stored: NDArray[Any],
        scale: NDArray[np.float32],
    ) -> None:
        """Compare a batch of live heatmaps (B, K, Hh, Wh) with what is stored of it."""
        restored = dequantise_heatmaps(stored, scale)
        is_clamped = stored.dtype == np.uint8
        error = restored - (np.maximum(heatmaps, np.float32(0)) if is_clamped else heatmaps)
        self._squares += float(np.square(error, dtype=np.float64).sum())
        self._num_values += error.size
        self._largest = max(self._largest, float(np.abs(error).max()))
        self.decoded.add(places, restored)

    def fidelity(self, studied: StudiedPeople, live: DecodedPoints, truth: "Poses") -> Fidelity:
        """Return what was measured, once every map was added; truth: poses of the live maps."""
        shifts = np.linalg.norm(self.decoded.points - live.points, axis=-1)  # (P, V, K)
        every = Shifts.of(shifts)
        assert every is not None  # there are people
        return Fidelity(
            rms_error=(self._squares / self._num_values) ** 0.5,
            largest_error=self._largest,
            all_keypoints=every,
            labelled_keypoints=Shifts.of(shifts[:, 0][studied.people.is_labelled]),
            poses=_change(truth, measure_poses(studied, self.decoded)),
        )


@dataclass(frozen=True)
class Poses:
    """How good the poses of view 0 are."""

    ap: float | None
    oks: NDArray[np.float64]  # (P,), NaN: no labelled keypoint


def measure_poses(studied: StudiedPeople, decoded: DecodedPoints) -> Poses:
    """Compare decoded points of view 0 with the truth."""
    people = studied.people
    image_to_heatmap = compose(studied.crop_to_heatmap, studied.image_to_crop[:, 0])
    size = padded_box_size(people.bbox_xywh, studied.input_size_hw, studied.padding)
    poses = PosePredictions(
        image_id=people.image_id[people.image_index],
        annotation_id=people.instance_id,
        keypoints=apply(invert(image_to_heatmap), decoded.points[:, 0]),
        keypoint_scores=decoded.peaks[:, 0],
        box_score=np.ones(people.num_instances),
        crop_area=size.prod(axis=-1),
    )
    results = coco_results(poses, instance_scores(poses, ScoreRule()), people.category_id)
    return Poses(evaluate_results(people, results).AP, measure_localisation(people, poses).oks)


def _change(live: Poses, stored: Poses) -> PoseChange:
    change = np.abs(stored.oks - live.oks)
    change = change[np.isfinite(change)]
    return PoseChange(
        num_people=len(change),
        live_ap=live.ap,
        stored_ap=stored.ap,
        mean_oks_change=float(change.mean()) if change.size else 0.0,
        largest_oks_change=float(change.max(initial=0.0)),
    )
