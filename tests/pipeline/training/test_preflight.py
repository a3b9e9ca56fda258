"""Memory and time that a training needs: measured without a trace, refused where it cannot fit."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.errors import ConfigError
from pipeline.training import preflight
from pipeline.training.batch import TrainingBatch
from pipeline.training.losses import Criterion, LossTerms
from pipeline.training.preflight import (
    ALLOCATOR_BYTES,
    BESIDE_TENSORS,
    LoadedViews,
    check_before_training,
    image_cache_bytes,
    measure_step,
)
from pipeline.training.settings import OptimisationConfig
from pipeline.training.training_setup import Training
from pipeline.training.view_order import ViewOrder
from tests.support.tiny_training import INFO

WIDTH, DEPTH = 10_000, 30


class Mean(Criterion):
    @property
    def scored_keypoints(self) -> tuple[int, ...]:
        return ()

    def forward(self, output: Tensor, batch: TrainingBatch, step: int) -> LossTerms:
        assert step == 399  # the last one of the training
        return LossTerms(output.mean(), {})


class Views(Dataset[TrainingBatch]):
    def __getitem__(self, batch: Any) -> TrainingBatch:
        size = len(batch.instances)
        images = torch.rand(size, WIDTH)
        small = torch.zeros(size, 1)
        return TrainingBatch(images, torch.zeros(size, 1, 2), small, small.bool(), small[:, 0])


def no_batches(epoch: int, start: int) -> Iterator[TrainingBatch]:
    raise AssertionError("the training's own views are not shown")


def training(batch_size: int, network: nn.Module) -> Training:
    return Training(
        network=network,
        criterion=Mean(),
        normalise=lambda images: images,
        info=INFO,
        batches_of_epoch=no_batches,
        steps_per_epoch=100,
        batch_size=batch_size,
        epochs=4,
        optimisation=OptimisationConfig(),
        device=torch.device("cpu"),
    )


def views(batch_size: int, num_workers: int = 0, cache_bytes: int = 0) -> LoadedViews:
    rows = np.arange(1000)
    order = ViewOrder(rows, rows, None, batch_size, 0)
    return LoadedViews(Views(), order, num_workers, cache_bytes)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor


def deep() -> nn.Module:
    """Every layer but the first keeps its output, of the size of the images, for its gradient."""
    return nn.Sequential(Scale(), *[nn.Tanh() for _ in range(DEPTH)])


def test_a_views_share_of_a_step_is_the_size_of_the_tensors_that_live_at_once() -> None:
    cost = measure_step(training(8, deep()), views(8).load)
    # All outputs, and from one to three gradients beside them; the images are the batch's.
    assert DEPTH + 1 <= cost.step_bytes / (4 * WIDTH) <= DEPTH + 4
    assert cost.batch_bytes == 4 * WIDTH + 8 + 4 + 1 + 4
    assert cost.step_seconds > 0


def test_the_training_stays_as_it_was() -> None:
    network = nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Dropout(0.5))
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    measure_step(training(8, network.eval()), views(8).load)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not network.training
    assert all(weight.grad is None for weight in network.parameters())


def test_what_cannot_fit_is_refused_with_a_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "free_memory", lambda: 400_000_000)
    with pytest.raises(ConfigError) as refusal:
        check_before_training(training(900, deep()), views(900))
    said = str(refusal.value)
    assert said.startswith("a batch of 900 needs about 1.")
    assert said.endswith(
        "400 MB are free: give --micro-batch 128, --batch-size 128 or a smaller --preset"
    )
    check_before_training(training(128, deep()), views(128))


def test_caches_of_the_loaders_count_and_are_the_way_out_where_they_alone_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "free_memory", lambda: 1_000_000_000)
    check_before_training(training(2, deep()), views(2, 2, 100_000_000))
    with pytest.raises(ConfigError, match=r"needs about 2\.\d GB .* give fewer --workers or a"):
        check_before_training(training(2, deep()), views(2, 4, 500_000_000))


def test_one_line_tells_device_parameters_memory_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "free_memory", lambda: 9_000_000_000)
    monkeypatch.setattr(
        preflight, "measure_step", lambda *_: preflight.StepCost(10_000_000, 1_000_000, 0.5, 0.25)
    )
    network = nn.Linear(1000, 1000)  # 1,001,000 weights, three numbers of 4 bytes each
    needed = BESIDE_TENSORS * 80e6 + 8e6 + 12 * 1_001_000 + ALLOCATOR_BYTES
    for num_workers, hours, more in (
        (0, "40.0 minutes", 0),
        (1, "26.7 minutes", 32e6 + (32 << 20)),
    ):
        said = check_before_training(training(8, network), views(8, num_workers))
        assert ": tiny of 1.0 million parameters needs about " in said
        assert f"{(needed + more) / 1e6:.0f} MB of memory, 9.0 GB are free; 4 epochs of" in said
        assert said.endswith(f"4 epochs of 100 steps take about {hours}")
    said = check_before_training(training(8, network), views(8), epochs_done=3)
    assert said.endswith("1 epoch of 100 steps takes about 10.0 minutes")
    monkeypatch.setattr(preflight, "free_memory", lambda: None)
    assert "an unknown amount is free" in check_before_training(training(8, network), views(8))


def test_a_cache_holds_no_more_than_the_images_of_the_people() -> None:
    class People:
        image_index = np.array([0, 0, 2])
        image_size_hw = np.array([[10, 20], [1000, 1000], [30, 40]], np.int32)

    assert image_cache_bytes(People(), np.array([0, 1]), 512) == 600  # type: ignore[arg-type]
    assert image_cache_bytes(People(), np.array([1, 2]), 512) == 4200  # type: ignore[arg-type]
    assert image_cache_bytes(People(), np.array([1, 2]), 0) == 0  # type: ignore[arg-type]
