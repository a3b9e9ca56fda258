"""The same person in successive frames of a video: track ids, and boxes that follow the poses.

Greedy matching: the most similar pair of a track and a pose is joined first. Similarity is OKS
between the pose and the track's last pose, moved on by its velocity; what OKS does not join, for it
falls off within a few centimetres, is joined by the overlap of boxes (IoU).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.boxes import Boxes
from pipeline.prediction.image_poses import ImagePoses
from pipeline.prediction.pose_scores import keypoint_similarities

MIN_OKS = 0.3
"""Smallest OKS of a track and a pose that are joined."""
MIN_IOU = 0.3
"""Smallest overlap of their boxes, where OKS did not join them."""
MAX_MISSING = 15
"""Number of frames without a pose after which a track ends: half a second at 30 frames/s."""
FOLLOW_MARGIN = 0.15
"""Margin around a pose's keypoints that makes its box, on each side, as a fraction of their extent:
head, hands and feet reach beyond them."""
_NEW_VELOCITY = 0.5
"""Share of the last step in a track's velocity; the rest is its former velocity."""


@dataclass
class _Track:
    track_id: int
    keypoints: NDArray[np.float64]  # (J, 2), image pixels, those that are compared
    bbox_xywh: NDArray[np.float64]  # (4,)
    score: float
    velocity: NDArray[np.float64]  # (2,), image pixels a frame
    missing: int = 0

    @property
    def shift(self) -> NDArray[np.float64]:
        """Where the person moved since the last pose, (2,)."""
        return self.velocity * (self.missing + 1)

    @property
    def expected_box(self) -> NDArray[np.float64]:
        return self.bbox_xywh + np.concatenate([self.shift, np.zeros(2)])


class Tracker:
    """Gives the poses of one video their track ids, frame by frame; ids count from 1."""

    def __init__(
        self, sigmas: NDArray[np.float64] | None, columns: tuple[int, ...] | None = None
    ) -> None:
        """Begin a video.

        sigmas: (K,), the fall-offs of OKS; None: boxes alone are compared.
        columns: keypoints that are compared; None: all.
        """
        self._columns = list(columns) if columns else slice(None)
        self._sigmas = None if sigmas is None else sigmas[self._columns]
        self._tracks: list[_Track] = []
        self._followed: dict[bytes, _Track] = {}
        """Tracks by the boxes that were given out for the next frame."""
        self._next_id = 1

    def update(self, poses: ImagePoses) -> NDArray[np.int64]:
        """Take the poses of the next frame; return their track ids, (P,) int64, distinct."""
        keypoints = poses.keypoints[:, self._columns]
        joined = self._join(keypoints, poses.bbox_xywh)
        self._followed = {}
        tracks = []
        for row in range(poses.num_people):
            track = joined.get(row)
            if track is None:
                track_id, velocity = self._next_id, np.zeros(2)
                self._next_id += 1
            else:
                step = (keypoints[row] - track.keypoints).mean(axis=0) / (track.missing + 1)
                track_id = track.track_id
                velocity = _NEW_VELOCITY * step + (1 - _NEW_VELOCITY) * track.velocity
            tracks.append(
                _Track(
                    track_id,
                    keypoints[row],
                    poses.bbox_xywh[row],
                    float(poses.box_scores[row]),
                    velocity,
                )
            )
        seen = {track.track_id for track in joined.values()}
        for track in self._tracks:
            if track.track_id not in seen and track.missing < MAX_MISSING:
                track.missing += 1
                tracks.append(track)
        self._tracks = tracks
        return np.array([track.track_id for track in tracks[: poses.num_people]], np.int64)

    def followed(self, size_hw: tuple[int, int]) -> Boxes:
        """Return the boxes of the next frame: around the last poses, moved on, inside the image.

        size_hw: of the image; who has left it is not followed.
        """
        boxes, scores = [], []
        limit = np.array(size_hw[::-1], np.float64)
        for track in self._tracks:
            if track.missing:
                continue
            low = track.keypoints.min(axis=0) + track.shift
            high = track.keypoints.max(axis=0) + track.shift
            margin = FOLLOW_MARGIN * (high - low)
            low, high = np.maximum(low - margin, 0), np.minimum(high + margin, limit)
            if (high - low >= 1).all():
                box = np.concatenate([low, high - low])
                self._followed[box.tobytes()] = track
                boxes.append(box)
                scores.append(track.score)
        return Boxes.of(np.array(boxes).reshape(-1, 4), scores)

    def _join(
        self, keypoints: NDArray[np.float64], bbox_xywh: NDArray[np.float64]
    ) -> dict[int, _Track]:
        """Return the track of each pose that has one, by the pose's row."""
        # A pose in a box that followed a track is that track's, however far it moved.
        boxes = (box.tobytes() for box in np.ascontiguousarray(bbox_xywh, np.float64))
        joined = {
            row: self._followed[box] for row, box in enumerate(boxes) if box in self._followed
        }
        if self._tracks and len(bbox_xywh):
            if self._sigmas is not None:
                self._join_best(self._similarities(keypoints, self._sigmas), MIN_OKS, joined)
            expected = np.stack([track.expected_box for track in self._tracks])
            self._join_best(box_ious(expected, bbox_xywh), MIN_IOU, joined)
        return joined

    def _join_best(
        self, similarity: NDArray[np.float64], least: float, joined: dict[int, _Track]
    ) -> None:
        """Add the pairs of a track and a pose that are free, the most similar first."""
        used = {track.track_id for track in joined.values()}
        for flat in np.argsort(-similarity, axis=None, kind="stable").tolist():
            place, row = divmod(flat, similarity.shape[1])
            if similarity[place, row] < least:
                return
            track = self._tracks[place]
            if track.track_id not in used and row not in joined:
                joined[row] = track
                used.add(track.track_id)

    def _similarities(
        self, keypoints: NDArray[np.float64], sigmas: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the OKS of every track and pose, (T, P), over the area that their joints span."""
        expected = np.stack([track.keypoints + track.shift for track in self._tracks])
        area = (_spanned_area(expected)[:, None] + _spanned_area(keypoints)[None, :]) / 2
        pairs = expected[:, None], keypoints[None, :]
        return np.asarray(keypoint_similarities(*pairs, area, sigmas).mean(axis=-1))


def box_ious(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the overlap (IoU) of boxes (N, 4) and others (M, 4), as (x, y, w, h): (N, M)."""
    first, second = boxes[:, None], others[None, :]
    corner = np.maximum(first[..., :2], second[..., :2])
    end = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    common = np.clip(end - corner, 0, None).prod(axis=-1)
    union = first[..., 2:].prod(axis=-1) + second[..., 2:].prod(axis=-1) - common
    return np.asarray(common / union)


def _spanned_area(keypoints: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area of the box around keypoints (N, J, 2): (N,)."""
    return np.asarray(np.ptp(keypoints, axis=1).prod(axis=-1))
