"""Figures of a network on the reported people, measured once for its weights and kept in a file.

The file's name is the digest of weights, annotations and settings of the measurement: a network
that has not changed is never measured again, and no file answers for another network.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.poses import ScoreKind, coco_results
from pipeline.errors import ConfigError
from pipeline.evaluation.average_precision import MatchedPoses, match_poses
from pipeline.evaluation.localisation import mean_defined
from pipeline.evaluation.report import compare_results, defined
from pipeline.prediction.estimators import predict_people
from pipeline.prediction.networks import open_student
from pipeline.prediction.pose_scores import instance_scores
from pipeline.settings import DeviceName
from pipeline.storage.files import file_sha256, publish
from pipeline.teachers.opening import require_same_names

VERSION = 2
"""Version of the measurement; files of another one are not read."""
DECIMALS = 2
"""Decimals of a kept keypoint, in pixels."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of one network, and what paired intervals need of every person."""

    own_score: Mapping[str, float | None]
    """COCO figures of poses that are ranked by the network's own score."""
    score_one: Mapping[str, float | None]
    """COCO figures of poses of score 1."""
    mean_oks: float
    oks: NDArray[np.float64]  # (N,), NaN: no labelled keypoint
    keypoint_oks: NDArray[np.float64]  # (K,), NaN: never labelled
    pck: NDArray[np.float64]  # (K,), NaN: never labelled
    matched: MatchedPoses
    score_kind: ScoreKind
    """``one``: no keypoint's score was trained, and every score is 1."""
    scores: NDArray[np.float64]  # (N,), of every person's pose
    keypoints: NDArray[np.float64]
    """(N, K, 2) as (x, y), image pixels, rounded to ``DECIMALS``: for pictures."""

    @property
    def mean_pck(self) -> float:
        """The mean over keypoint kinds, NaN where none is ever labelled."""
        return mean_defined(self.pck)

    def to_json(self) -> str:
        """Return it as JSON; a pose's ten thresholds are the bits of one number."""
        matched = self.matched
        content = {
            "own_score": self.own_score,
            "score_one": self.score_one,
            "mean_oks": self.mean_oks,
            "oks": _with_null(self.oks),
            "keypoint_oks": _with_null(self.keypoint_oks),
            "pck": _with_null(self.pck),
            "poses": {
                "image": matched.image.tolist(),
                "is_match": _as_bits(matched.is_match),
                "is_ignored": _as_bits(matched.is_ignored),
            },
            "num_people": matched.num_people.tolist(),
            "score_kind": self.score_kind,
            "scores": self.scores.tolist(),
            "keypoints": self.keypoints.tolist(),
        }
        return json.dumps(content, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse what ``to_json`` wrote."""
        content: dict[str, Any] = json.loads(text)
        poses = content["poses"]
        return cls(
            own_score=content["own_score"],
            score_one=content["score_one"],
            mean_oks=content["mean_oks"],
            oks=_with_nan(content["oks"]),
            keypoint_oks=_with_nan(content["keypoint_oks"]),
            pck=_with_nan(content["pck"]),
            matched=MatchedPoses(
                image=np.array(poses["image"], np.int64),
                is_match=_from_bits(poses["is_match"]),
                is_ignored=_from_bits(poses["is_ignored"]),
                num_people=np.array(content["num_people"], np.int64),
            ),
            score_kind=content["score_kind"],
            scores=np.array(content["scores"], np.float64),
            keypoints=np.array(content["keypoints"], np.float64),
        )


class Evaluator:
    """Measures students on the same people, each network once.

    Raises:
        ConfigError: the people's skeleton has no sigmas, so that there is neither AP nor OKS.
    """

    def __init__(
        self,
        people: People,
        annotations: Path,
        image_folder: Path,
        cache: Path,
        *,
        threshold: float | None,
        device: DeviceName = "auto",
    ) -> None:
        if not people.skeleton.sigmas:
            raise ConfigError(
                f"AP and OKS are compared, but the skeleton of {annotations} has no sigmas; give "
                "them as people.skeleton.sigmas, in --set or in a sweep's [settings]"
            )
        self._people = people
        self._annotations_sha256 = file_sha256(annotations)
        self._image_folder, self._cache = image_folder, cache
        self._threshold, self._device = threshold, device

    def measure(
        self, weights: Path, on_progress: Callable[[int], None] = lambda _: None
    ) -> Evaluation:
        """Return the figures of a student's weights, under the flip test.

        on_progress: called with the number of poses of every batch, if the network has to predict.

        Raises:
            DistilError: the weights cannot be read, or are those of other keypoints.
        """
        file = self._cache / f"{self._key(weights)}.json"
        if file.is_file():
            return Evaluation.from_json(file.read_bytes())
        found = self._predict_and_measure(weights, on_progress)
        publish(file, found.to_json().encode())
        return found

    def _key(self, weights: Path) -> str:
        facts = {
            "version": VERSION,
            "weights": file_sha256(weights),
            "annotations": self._annotations_sha256,
            "instances": hashlib.sha256(self._people.instance_id.tobytes()).hexdigest(),
            "boxes": hashlib.sha256(self._people.bbox_xywh.tobytes()).hexdigest(),
            "areas": hashlib.sha256(self._people.area.tobytes()).hexdigest(),
            "sigmas": self._people.skeleton.sigmas,
            "keypoint_threshold": self._threshold,
            "flip_test": True,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _predict_and_measure(self, weights: Path, on_progress: Callable[[int], None]) -> Evaluation:
        people = self._people
        opened = open_student(
            weights, flip_test=True, threshold=self._threshold, device=self._device
        )
        require_same_names(str(weights), opened.skeleton.keypoint_names, people)
        predictions = predict_people(
            opened.estimator,
            people,
            self._image_folder,
            padding=opened.padding,
            on_progress=on_progress,
        )
        scores = instance_scores(predictions, opened.rule)
        results = coco_results(predictions, scores, people.category_id)
        row = compare_results(people, results)
        return Evaluation(
            own_score=row.own_score.as_dict(),
            score_one=row.score_one.as_dict(),
            mean_oks=row.mean_oks,
            oks=row.localisation.oks,
            keypoint_oks=row.localisation.keypoint_oks,
            pck=row.localisation.pck,
            matched=match_poses(people, results),
            score_kind=opened.rule.kind,
            scores=scores,
            keypoints=predictions.keypoints.round(DECIMALS),
        )


def _with_null(values: NDArray[np.float64]) -> list[float | None]:
    return [defined(value) for value in values]


def _with_nan(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _as_bits(by_threshold: NDArray[np.bool_]) -> list[int]:
    powers = 1 << np.arange(len(by_threshold))
    return [int(bits) for bits in powers @ by_threshold.astype(np.int64)]


def _from_bits(bits: list[int]) -> NDArray[np.bool_]:
    return (np.array(bits, np.int64)[None] >> np.arange(10)[:, None]) & 1 == 1
