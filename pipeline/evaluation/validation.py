"""COCO figures of a student while it trains, as ``distil evaluate`` would print them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.coco.people import People
from pipeline.coco.poses import PosePredictions
from pipeline.coco.read_people import read_people
from pipeline.errors import PeopleError
from pipeline.evaluation.comparison import mean_pose_arm
from pipeline.evaluation.inputs import with_sigmas
from pipeline.evaluation.localisation import Localisation, paired_bootstrap
from pipeline.evaluation.report import compare_figures, defined
from pipeline.models.pose_networks import Student
from pipeline.prediction.estimators import predict_people
from pipeline.prediction.networks import student_estimator
from pipeline.runs.checkpoints import CheckpointInfo, DecidingFigure
from pipeline.settings import PeopleSettings
from pipeline.training.distributed import ALONE, Processes
from pipeline.wording import Log

_logger = logging.getLogger(__name__)

LEAST_GAIN = 0.02
"""Gain of mean OKS, or PCK, over the mean pose below which nothing counts as learned: a network
that predicts the mean pose differs from it by less, in either direction."""
WAYS_OUT = "try --init-weights, --pretrained, more steps or a smaller batch"


@dataclass(frozen=True)
class Validation:
    """People that are not trained on."""

    people: People
    image_folder: Path
    device: torch.device
    mean_pose: Localisation
    """Figure of the training people's mean pose, placed in every box."""
    say: Log
    """Receives a line about each measurement."""
    processes: Processes = ALONE
    """Those that share the training; each predicts some of the people, the first one compares."""

    def measure(self, network: nn.Module, info: CheckpointInfo) -> dict[str, float | None]:
        """Return AP, AR, mean OKS and PCK of poses that are scored by the rule of ``info``."""
        assert isinstance(network, Student)
        estimator = student_estimator(network, info, device=str(self.device))
        rows = self.processes.own_rows(self.people.num_instances)
        people = self.people.select(rows)
        predictions = predict_people(estimator, people, self.image_folder, padding=info.padding)
        parts = self.processes.gathered((rows, predictions))
        figures = self._compare(_in_order(parts), info) if self.processes.is_first else {}
        return self.processes.of_first(figures)

    def _compare(
        self, predictions: PosePredictions, info: CheckpointInfo
    ) -> dict[str, float | None]:
        row = compare_figures(self.people, predictions, info.rule)
        remark = compare_with_mean_pose(row.localisation, self.mean_pose)
        _logger.info("%s", remark)
        ap = "" if row.own_score.AP is None else f"AP {row.own_score.AP:.3f}, "
        self.say(f"epoch {info.epoch}: {ap}{remark}")
        return {
            "AP": row.own_score.AP,
            "AP50": row.own_score.AP50,
            "AP75": row.own_score.AP75,
            "AR": row.own_score.AR,
            "AP_with_score_one": row.score_one.AP,
            "mean_oks": defined(row.mean_oks),
            "mean_pck": defined(row.mean_pck),
            "mean_pose_oks": defined(self.mean_pose.mean_oks),
            "mean_pose_pck": defined(self.mean_pose.mean_pck),
        }

    @property
    def decided_by(self) -> DecidingFigure:
        """The figure of ``measure`` by which the best weights are chosen: PCK if OKS is unknown."""
        return "AP" if self.people.skeleton.sigmas else "mean_pck"


def _in_order(
    parts: Sequence[tuple[NDArray[np.int64], PosePredictions]],
) -> PosePredictions:
    """Join the predictions of some rows of a table each; every row occurs once."""
    rows = np.concatenate([rows for rows, _ in parts])
    joined = PosePredictions(
        **{
            field.name: np.concatenate([getattr(part, field.name) for _, part in parts])
            for field in fields(PosePredictions)
        }
    )
    return joined.select(np.argsort(rows))


def compare_with_mean_pose(student: Localisation, mean_pose: Localisation) -> str:
    """Say in one line how far a student is from the mean pose, and whether it has learned at all.

    It has where its mean OKS is higher by ``LEAST_GAIN`` or more, and by more than chance among
    these people; where the skeleton has no fall-offs, PCK decides.
    """
    has_people = ~np.isnan(student.oks)
    if has_people.any():
        name, own, other = "OKS", student.mean_oks, mean_pose.mean_oks
        gain = paired_bootstrap(
            student.oks[has_people], mean_pose.oks[has_people], num_samples=1000, seed=0
        )
        is_clear = gain.low > 0
    else:
        name, own, other, is_clear = "PCK@0.2", student.mean_pck, mean_pose.mean_pck, True
    if own - other < LEAST_GAIN:
        return (
            f"mean {name} {own:.3f}, no better than the mean pose's {other:.3f}: the student has "
            f"learned nothing yet; {WAYS_OUT}"
        )
    if not is_clear:
        return (
            f"mean {name} {own:.3f}, not clearly better than the mean pose's {other:.3f} on so few "
            f"people; if this remains, {WAYS_OUT}"
        )
    return f"mean {name} {own:.3f}, that of the mean pose is {other:.3f}"


def open_validation(
    annotations: Path,
    image_folder: Path,
    settings: PeopleSettings,
    train: People,
    device: torch.device,
    say: Log,
    processes: Processes = ALONE,
) -> Validation:
    """Read the people to validate on, and refuse those that cannot be compared.

    train: the training people. Their mean pose is what a student must beat; their OKS fall-offs are
        used where those of the validation people are unknown, as by ``evaluate``.
    say: receives a line about each measurement.
    processes: those that share the training.

    Raises:
        PeopleError: their keypoints are not the trained ones.
    """
    people = read_people(annotations, image_folder, settings)
    names, expected = people.skeleton.keypoint_names, train.skeleton.keypoint_names
    if names != expected:
        if len(names) != len(expected):
            difference = (
                f"{len(expected)} ({', '.join(expected)}), got {len(names)} ({', '.join(names)})"
            )
        else:
            place = next(i for i, name in enumerate(names) if name != expected[i])
            difference = f"number {place + 1} of them {expected[place]!r}, got {names[place]!r}"
        raise PeopleError(
            f"keypoint_names of {annotations} must be those of training in the same order, "
            f"{difference}; validate on people of the same keypoints"
        )
    people = with_sigmas(people, people.skeleton.sigmas or train.skeleton.sigmas)
    mean_pose = mean_pose_arm(train, people).figures.localisation
    return Validation(people, image_folder, device, mean_pose, say, processes)
