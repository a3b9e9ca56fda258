"""One row of a table that compares networks, and the evaluation.json of a run.

Every row has three columns: AP under the network's own score, AP with score 1 for all, and mean
OKS. Ranking alone is worth 9 to 13 points of AP, so better localisation shows in the last two.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields

import numpy as np

from pipeline.coco.people import People
from pipeline.coco.poses import (
    PosePredictions,
    ScoreRule,
    coco_results,
    result_poses,
    results_with_score_one,
)
from pipeline.coco.records import KeypointResult
from pipeline.coco.result_files import check_results
from pipeline.evaluation.coco_evaluation import CocoFigures, evaluate_results
from pipeline.evaluation.localisation import Localisation, measure_localisation
from pipeline.prediction.networks import Facts
from pipeline.prediction.pose_scores import instance_scores


@dataclass(frozen=True)
class ComparisonRow:
    """Figures of one network on some people."""

    own_score: CocoFigures
    """Poses ranked by the network's own score."""
    score_one: CocoFigures
    """Poses unranked: all with score 1."""
    localisation: Localisation

    @property
    def mean_oks(self) -> float:
        return self.localisation.mean_oks

    @property
    def mean_pck(self) -> float:
        return self.localisation.mean_pck


def compare_figures(people: People, predictions: PosePredictions, rule: ScoreRule) -> ComparisonRow:
    """Score and measure predictions; duplicates of a detector's boxes are removed before."""
    scores = instance_scores(predictions, rule)
    return compare_results(people, coco_results(predictions, scores, people.category_id))


def compare_results(people: People, results: Sequence[KeypointResult]) -> ComparisonRow:
    """Measure results that have their score already.

    Without OKS fall-offs the COCO figures are None, and PCK is all that is measured.

    Raises:
        PeopleError: a result contradicts the people.
        ConfigError: the skeleton's OKS fall-offs are not one per keypoint.
    """
    own_score = _coco_figures(people, results)
    return ComparisonRow(
        own_score=own_score,
        score_one=_coco_figures(people, results_with_score_one(results)),
        localisation=measure_localisation(
            people, result_poses(results, people.skeleton.num_keypoints)
        ),
    )


def _coco_figures(people: People, results: Sequence[KeypointResult]) -> CocoFigures:
    if people.skeleton.sigmas:
        return evaluate_results(people, results)
    check_results(results, people, "results")
    return CocoFigures(*[None] * len(fields(CocoFigures)))


@dataclass(frozen=True)
class EvaluationReport:
    """The content of evaluation.json."""

    row: ComparisonRow
    keypoint_names: tuple[str, ...]
    num_images: int
    num_people: int
    num_poses: int
    score_rule: ScoreRule | None = None
    """None: the poses came with their score."""
    evaluated: Facts = field(default_factory=dict)
    """Facts of what was evaluated, such as the checkpoint, the store and the annotation file."""

    def to_json(self) -> str:
        """Write the report as JSON, null where a figure is not defined."""
        localisation, rule = self.row.localisation, self.score_rule
        kind = {"kind": "keypoint_mean"} if rule is not None and rule.kind == "learned" else {}
        content = {
            **self.row.own_score.as_dict(),
            "score_one": self.row.score_one.as_dict(),
            "mean_oks": defined(localisation.mean_oks),
            "mean_pck": defined(localisation.mean_pck),
            "keypoints": {
                name: {"oks": defined(oks), "pck": defined(pck)}
                for name, oks, pck in zip(
                    self.keypoint_names, localisation.keypoint_oks, localisation.pck, strict=True
                )
            },
            "num_images": self.num_images,
            "num_people": self.num_people,
            "num_poses": self.num_poses,
            "score_rule": None if rule is None else asdict(rule) | kind,
            "evaluated": dict(self.evaluated),
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"


def defined(value: float | np.float64) -> float | None:
    """Return a figure, or None in place of NaN."""
    return None if math.isnan(value) else float(value)
