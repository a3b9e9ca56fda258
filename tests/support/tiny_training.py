"""A training of a tiny convolutional network on numbers, as fast as a training can be."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.runs.checkpoints import CheckpointInfo
from pipeline.training.batch import TrainingBatch
from pipeline.training.distributed import ALONE, Processes
from pipeline.training.losses import Criterion, LossTerms
from pipeline.training.settings import OptimisationConfig
from pipeline.training.training_setup import Training
from pipeline.training.view_order import ViewBatch, ViewOrder

NUM_PEOPLE, BATCH_SIZE = 32, 7
INFO = CheckpointInfo(
    kind="student",
    architecture="tiny",
    input_size_hw=(4, 4),
    padding=1.0,
    keypoint_names=("nose", "tail"),
    edges=(),
    flip_indices=(0, 1),
    sigmas=(0.1, 0.1),
    upper_body=(),
    lower_body=(),
    score_rule="one",
    scored_keypoints=(),
    seed=0,
    epoch=0,
    step=0,
)


class Distance(Criterion):
    """The mean squared distance to the keypoints, stretched by a weight of its own.

    Keypoint 1 counts as scored where the first person is in the batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(2))
        self.has_seen_the_first = False

    @property
    def scored_keypoints(self) -> tuple[int, ...]:
        return (0, 1) if self.has_seen_the_first else (0,)

    def forward(self, output: Tensor, batch: TrainingBatch, step: int) -> LossTerms:
        self.has_seen_the_first |= bool((batch.areas == 0).any())
        error = (self.factor * output - batch.keypoints[:, 0]).square().mean()
        return LossTerms(error, {"error": error.detach()})


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )


def order() -> ViewOrder:
    rows = np.arange(NUM_PEOPLE)
    return ViewOrder(rows, rows, None, BATCH_SIZE, seed=3)


def load(views: ViewBatch) -> TrainingBatch:
    """Return the numbers of these people under these views."""
    generators = [
        np.random.default_rng([instance, view])
        for instance, view in zip(*map(np.ndarray.tolist, views), strict=True)
    ]
    images = np.stack([g.normal(size=(4, 4, 3)) for g in generators]).astype(np.float32)
    keypoints = np.stack([g.normal(size=(2, 2)) for g in generators]).astype(np.float32)
    weights = torch.ones(len(images), 2)
    areas = torch.from_numpy(views.instances.astype(np.float32))
    return TrainingBatch(
        torch.from_numpy(images), torch.from_numpy(keypoints), weights, weights > 0, areas
    )


def tiny_training(
    processes: Processes = ALONE,
    before_batch: Callable[[int], None] = lambda _: None,
    optimisation: dict[str, Any] | None = None,
    **changes: Any,
) -> Training:
    """Return a training of 4 steps an epoch.

    before_batch: called with the number of each step before its batch is loaded.
    """

    def batches(epoch: int, start: int) -> Iterator[TrainingBatch]:
        for step, views in enumerate(order().batches(epoch, start), start=4 * epoch + start):
            before_batch(step)
            yield load(processes.own_views(views))

    settings: dict[str, Any] = {"warmup_steps": 0, "schedule": "constant", **(optimisation or {})}
    return Training(
        **{
            "network": network(),
            "criterion": Distance(),
            "normalise": lambda images: images.permute(0, 3, 1, 2),
            "info": INFO,
            "batches_of_epoch": batches,
            "steps_per_epoch": len(order()),
            "batch_size": BATCH_SIZE,
            "epochs": 2,
            "optimisation": OptimisationConfig(batch_size=BATCH_SIZE, **settings),
            "device": torch.device("cpu"),
            "processes": processes,
            **changes,
        }
    )
