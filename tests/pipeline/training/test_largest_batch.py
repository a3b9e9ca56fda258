"""Laws of the largest batch: a power of two that fits, and at most the number of people."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.training import largest_batch as module
from pipeline.training.distributed import Processes
from pipeline.training.largest_batch import (
    LEFT_FREE,
    ViewsToTry,
    largest_batch,
    largest_that_runs,
)
from pipeline.training.preflight import (
    ALLOCATOR_BYTES,
    BESIDE_TENSORS,
    PREFETCHED_BATCHES,
    WORKER_BYTES,
    StepCost,
)
from pipeline.training.settings import OptimisationConfig
from tests.support.tiny_training import NUM_PEOPLE, load, network, tiny_training

COST = StepCost(step_bytes=1_000_000, batch_bytes=100_000, step_seconds=0.0, load_seconds=0.0)


class Dataset:
    def __getitem__(self, views: Any) -> Any:
        return load(views)


def some_views(num_people: int = NUM_PEOPLE, num_workers: int = 0, cache: int = 0) -> ViewsToTry:
    return ViewsToTry(Dataset(), np.arange(num_people), num_workers, cache)  # type: ignore[arg-type]


@pytest.mark.parametrize(("room", "expected"), [(0, 0), (1, 1), (7, 4), (8, 8), (1000, 32)])
def test_batches_are_doubled_until_one_does_not_fit(room: int, expected: int) -> None:
    tried: list[int] = []

    def run(size: int) -> None:
        tried.append(size)
        if size > room:
            raise torch.OutOfMemoryError

    assert largest_that_runs(run, 32) == expected
    assert tried == [2**power for power in range(len(tried))]


def test_another_error_than_that_of_memory_is_raised() -> None:
    def run(size: int) -> None:
        raise ValueError("an image is damaged")

    with pytest.raises(ValueError, match="an image is damaged"):
        largest_that_runs(run, 32)


def with_memory(monkeypatch: pytest.MonkeyPatch, free: int | None) -> None:
    monkeypatch.setattr(module, "free_on", lambda *_: free)
    monkeypatch.setattr(module, "measure_step", lambda *_: COST)


def needed(size: int, num_workers: int = 0, cache: int = 0) -> int:
    """Return the free bytes that a batch needs, by the measure of the preflight."""
    weights = sum(p.numel() for p in (*network().parameters(), torch.empty(2)))
    constant = 12 * weights + ALLOCATOR_BYTES + max(1, num_workers) * cache
    constant += num_workers * WORKER_BYTES
    loaded = (1 + num_workers * PREFETCHED_BATCHES) * COST.batch_bytes
    of_a_crop = int(BESIDE_TENSORS * COST.step_bytes) + loaded
    return int((constant + size * of_a_crop) / (1 - LEFT_FREE)) + 2


@pytest.mark.parametrize(("num_workers", "cache"), [(0, 0), (2, 50_000_000)])
def test_on_a_cpu_the_batch_is_what_the_preflight_lets_pass(
    monkeypatch: pytest.MonkeyPatch, num_workers: int, cache: int
) -> None:
    views = some_views(NUM_PEOPLE, num_workers, cache)
    enough = needed(8, num_workers, cache)
    for free, expected in ((enough, 8), (enough - 9, 4)):
        with_memory(monkeypatch, free)
        assert largest_batch(tiny_training(), views) == expected


def test_a_batch_has_at_most_all_people(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 1 << 40)
    assert largest_batch(tiny_training(), some_views(33)) == 32
    assert largest_batch(tiny_training(), some_views(31)) == 16


class Pair(Processes):
    """Two processes, of which the other one has room for four crops."""

    def __init__(self) -> None:
        super().__init__(0, 2)

    def gathered(self, value: Any) -> list[Any]:
        return [value, 4]


def test_several_processes_take_what_fits_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 1 << 40)
    assert largest_batch(tiny_training(Pair()), some_views()) == 2 * 4


@pytest.mark.parametrize(
    ("free", "said"), [(1000, "not even a batch of 1 fits"), (None, "give --batch-size a number")]
)
def test_what_cannot_fit_or_be_known_is_refused(
    monkeypatch: pytest.MonkeyPatch, free: int | None, said: str
) -> None:
    with_memory(monkeypatch, free)
    with pytest.raises(ConfigError, match=said):
        largest_batch(tiny_training(), some_views())


def test_a_step_is_tried_on_a_copy() -> None:
    training = tiny_training()
    before = [weight.clone() for weight in training.network.parameters()]
    module._try_step(training, some_views().load(2))
    for weight, same in zip(training.network.parameters(), before, strict=True):
        assert weight.grad is None
        assert torch.equal(weight, same)


def test_auto_excludes_parts_of_a_batch_and_a_size_must_be_one() -> None:
    settings: Callable[..., Any] = OptimisationConfig.model_validate
    assert settings({"batch_size": "auto"}).batch_size is None
    assert settings({"batch_size": "64"}).batch_size == 64
    with pytest.raises(ValidationError, match="micro_batch limits the memory of a batch"):
        settings({"batch_size": "auto", "micro_batch": 8})
    for wrong in ("0", "many"):
        with pytest.raises(ValidationError):
            settings({"batch_size": wrong})
