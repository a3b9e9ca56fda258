"""COCO figures of a student while it trains, as ``distil evaluate`` would print them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipeline.coco.people import People, Skeleton
from pipeline.coco.read_people import read_people
from pipeline.errors import PeopleError
from pipeline.evaluation.inputs import with_sigmas
from pipeline.evaluation.report import compare_figures, defined
from pipeline.models.pose_networks import Student
from pipeline.prediction.estimators import predict_people
from pipeline.prediction.networks import student_estimator
from pipeline.runs.checkpoints import CheckpointInfo, DecidingFigure
from pipeline.settings import PeopleSettings


@dataclass(frozen=True)
class Validation:
    """People that are not trained on."""

    people: People
    image_folder: Path
    device: torch.device

    def measure(self, network: nn.Module, info: CheckpointInfo) -> dict[str, float | None]:
        """Return AP, AR, mean OKS and PCK of poses that are scored by the rule of ``info``."""
        assert isinstance(network, Student)
        estimator = student_estimator(network, info, device=str(self.device))
        predictions = predict_people(
            estimator, self.people, self.image_folder, padding=info.padding
        )
        row = compare_figures(self.people, predictions, info.rule)
        return {
            "AP": row.own_score.AP,
            "AP50": row.own_score.AP50,
            "AP75": row.own_score.AP75,
            "AR": row.own_score.AR,
            "AP_with_score_one": row.score_one.AP,
            "mean_oks": defined(row.mean_oks),
            "mean_pck": defined(row.mean_pck),
        }

    @property
    def decided_by(self) -> DecidingFigure:
        """The figure of ``measure`` by which the best weights are chosen: PCK if OKS is unknown."""
        return "AP" if self.people.skeleton.sigmas else "mean_pck"


def open_validation(
    annotations: Path,
    image_folder: Path,
    settings: PeopleSettings,
    trained: Skeleton,
    device: torch.device,
) -> Validation:
    """Read the people to validate on, and refuse those that cannot be compared.

    trained: its OKS fall-offs are used where those of the people are unknown, as by ``evaluate``.

    Raises:
        PeopleError: their keypoints are not the trained ones.
    """
    people = read_people(annotations, image_folder, settings)
    names, expected = people.skeleton.keypoint_names, trained.keypoint_names
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
    people = with_sigmas(people, people.skeleton.sigmas or trained.sigmas)
    return Validation(people, image_folder, device)
