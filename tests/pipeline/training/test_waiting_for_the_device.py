"""A step neither reads from the device nor copies numbers to it, which would wait for it.

No GPU is needed: the operations that would wait there are seen on the CPU too.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.frames.geometry import crop_to_heatmap
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.frames.pixels import PixelNormalisation
from pipeline.models.heads import HeatmapOutput
from pipeline.models.pose_networks import build_student, build_teacher
from pipeline.training.batch import TeacherBatch, TrainingBatch
from pipeline.training.heatmap_criterion import HeatmapCriterion
from pipeline.training.heatmap_losses import heatmap_loss
from pipeline.training.loss_parts import LossContext
from pipeline.training.losses import Criterion, StudentCriterion
from pipeline.training.settings import LossConfig, OptimisationConfig
from pipeline.training.training_step import Learner, average_of
from tests.support.tiny_training import tiny_training

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "_unique2", "equal"}
"""Operations that read from the device, or copy what the host has."""
NUM_KEYPOINTS, SIZE_HW, HEATMAP_HW = 3, (128, 96), (64, 48)


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations within the context that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        is_masked = any(index is not None and index.dtype == torch.bool for index in indices)
        if name in WAITS or is_masked:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def some_batch() -> TrainingBatch:
    random = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(2, *shape, generator=random)

    heatmaps = uniform(0, 256, NUM_KEYPOINTS, *HEATMAP_HW).to(torch.uint8)
    affine = torch.from_numpy(crop_to_heatmap("msra", SIZE_HW, HEATMAP_HW)).float()
    ones = torch.ones(2, NUM_KEYPOINTS)
    return TrainingBatch(
        images=uniform(0, 256, *SIZE_HW, 3).to(torch.uint8),
        keypoints=uniform(5, 90, NUM_KEYPOINTS, 2),
        keypoint_weights=ones,
        is_labelled=ones > 0,
        areas=uniform(100, 900),
        teacher=TeacherBatch(
            crop_to_heatmap=affine.repeat(2, 1, 1),
            heatmaps=heatmaps,
            scale=uniform(0.5, 1.2, NUM_KEYPOINTS) / 255,
            is_known=torch.ones(2, *HEATMAP_HW) > 0,
            keypoints=uniform(5, 90, NUM_KEYPOINTS, 2),
            keypoint_weights=ones,
            confidences=uniform(0.2, 1.0, NUM_KEYPOINTS),
        ),
    )


def student_criterion(**loss: Any) -> StudentCriterion:
    terms = dict.fromkeys(("regression", "simulated_heatmap", "confidence", "moments"), 1.0)
    terms |= {"teacher_regression": 1.0, "covariance": 1.0}
    context = LossContext(oks_sigmas=(0.1, 0.2, 0.3), heatmap_size_hw=HEATMAP_HW)
    return StudentCriterion(LossConfig(**{**terms, **loss}), NUM_KEYPOINTS, context)


def gaussians() -> HeatmapCriterion:
    affine = crop_to_heatmap("half-pixel", SIZE_HW, HEATMAP_HW)
    return HeatmapCriterion(affine, HEATMAP_HW, 2.0, NUM_KEYPOINTS)


@pytest.mark.parametrize(
    "criterion",
    [
        student_criterion(),
        student_criterion(regression_kind="l1", score_target="oks", sigma_floor=2.0),
        student_criterion(regression_kind="rle", distil_unlabelled_keypoints=True),
        gaussians(),
    ],
)
def test_a_step_waits_for_nothing(criterion: Criterion) -> None:
    is_student = isinstance(criterion, StudentCriterion)
    network: torch.nn.Module = (
        build_student("distilpose-xxs", NUM_KEYPOINTS, with_shear=True)
        if is_student
        else build_teacher("tokenpose-xs", NUM_KEYPOINTS)
    )
    training = replace(
        tiny_training(),
        network=network,
        criterion=criterion,
        normalise=PixelNormalisation().normalise,
        batch_size=2,
        optimisation=OptimisationConfig(gradient_clip=1.0, micro_batch=1),
    )
    learner, batch = Learner(training), some_batch()
    learner.train()
    learner.step(batch, 0)  # the optimiser's state is made in the first one
    with Waits() as waits:
        learner.step(batch, 1)
    assert waits.found == []


def test_an_average_counts_its_updates_on_the_cpu() -> None:
    """torch compares the count in every update, which would wait for a device."""
    with torch.device("meta"):
        network = torch.nn.Linear(2, 2)
    average = average_of(network, 0.9)
    assert average is not None
    assert average.n_averaged.device.type == "cpu"


def test_what_would_wait_is_seen() -> None:
    numbers = torch.ones(3)
    for wait in (
        lambda: numbers.sum().item(),
        lambda: bool((numbers > 0).any()),
        lambda: numbers[numbers > 0],
        lambda: numbers.new_tensor([1.0, 2.0]),
    ):
        with Waits() as waits:
            wait()
        assert waits.found


def test_the_gaussians_of_a_teachers_loss_are_those_that_are_drawn_elsewhere() -> None:
    batch = some_batch()
    maps = torch.rand(2, NUM_KEYPOINTS, *HEATMAP_HW)
    affine = crop_to_heatmap("half-pixel", SIZE_HW, HEATMAP_HW)
    points = batch.keypoints.numpy() @ affine[:, :2].T + affine[:, 2]
    drawn = torch.from_numpy(encode_keypoints(points, HEATMAP_HW, 2.0))
    expected = heatmap_loss(maps, drawn, batch.keypoint_weights)
    found = gaussians()(HeatmapOutput(maps, None), batch, 0).total
    np.testing.assert_allclose(found, expected, rtol=1e-5)
