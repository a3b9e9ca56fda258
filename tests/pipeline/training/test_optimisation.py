"""Laws of the optimiser and its schedule."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pipeline.models.pose_networks import build_network
from pipeline.training.optimisation import build_optimizer, build_scheduler
from pipeline.training.settings import OptimisationConfig


def rates(config: OptimisationConfig, num_steps: int) -> list[float]:
    optimizer = build_optimizer(nn.Linear(2, 2), nn.Module(), config)
    scheduler = build_scheduler(optimizer, config, num_steps)
    found = []
    for step in range(num_steps):
        scheduler.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_the_released_schedule_drops_tenfold_after_epochs_200_and_260() -> None:
    steps_per_epoch = 7
    found = rates(OptimisationConfig(warmup_steps=0), 300 * steps_per_epoch)
    assert found[200 * steps_per_epoch - 1] == pytest.approx(1e-3)
    assert found[200 * steps_per_epoch] == pytest.approx(1e-4)
    assert found[260 * steps_per_epoch - 1] == pytest.approx(1e-4)
    assert found[260 * steps_per_epoch] == pytest.approx(1e-5)


def test_warm_up_rises_linearly_to_the_learning_rate() -> None:
    found = rates(OptimisationConfig(warmup_steps=10, schedule="constant"), 20)
    assert found[0] == pytest.approx(1e-6)
    assert found[5] == pytest.approx((1e-6 + 1e-3) / 2)
    assert found[10:] == pytest.approx([1e-3] * 10)


def test_cosine_falls_to_the_minimum() -> None:
    config = OptimisationConfig(schedule="cosine", warmup_steps=0, min_learning_rate=1e-5)
    found = rates(config, 100)
    assert found[0] == pytest.approx(1e-3)
    assert found[50] == pytest.approx((1e-3 + 1e-5) / 2)
    assert found[-1] == pytest.approx(1e-5, rel=0.05)
    assert found == sorted(found, reverse=True)


def test_the_rate_of_a_step_does_not_depend_on_the_steps_before() -> None:
    config = OptimisationConfig(schedule="cosine", warmup_steps=5)
    optimizer = build_optimizer(nn.Linear(2, 2), nn.Module(), config)
    scheduler = build_scheduler(optimizer, config, 40)
    scheduler.step_update(31)
    assert optimizer.param_groups[0]["lr"] == rates(config, 40)[31]


def test_weight_decay_spares_norms_biases_and_keypoint_tokens() -> None:
    network = build_network("distilpose-xs", 3)
    optimizer = build_optimizer(
        network, nn.Module(), OptimisationConfig(optimizer="adamw", weight_decay=0.1)
    )
    decay = {
        id(weight): group["weight_decay"]
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    spared = {name for name, weight in network.named_parameters() if decay[id(weight)] == 0}
    assert "encoder.keypoint_tokens" in spared
    assert all(name in spared for name, w in network.named_parameters() if w.ndim == 1)
    assert {n for n, w in network.named_parameters() if w.ndim > 1} - spared >= {
        "encoder.layers.0.qkv.weight",
        "encoder.patch_embedding.weight",
        "head.linear.weight",
    }


def test_every_weight_is_optimised_exactly_once() -> None:
    network = build_network("distilpose-xs", 3)
    for name in ("adam", "adamw"):
        config = OptimisationConfig.model_validate({"optimizer": name})
        optimizer = build_optimizer(network, nn.Module(), config)
        optimised = [id(w) for group in optimizer.param_groups for w in group["params"]]
        assert sorted(optimised) == sorted(map(id, network.parameters()))
        assert isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay_at": (0.9, 0.5)}, "expected rising fractions"),
        ({"decay_at": (200.0,)}, "expected rising fractions"),
        ({"weight_decay": 0.1}, "weight_decay needs optimizer = 'adamw'"),
        (
            {"min_learning_rate": 1.0},
            r"min_learning_rate is 1\.0; expected at most learning_rate, 0\.001",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OptimisationConfig.model_validate(settings)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_weights_of_the_criterion_are_optimised_after_those_of_the_network(optimizer: str) -> None:
    network, criterion = nn.Linear(2, 2), nn.Linear(3, 1)
    config = OptimisationConfig.model_validate({"optimizer": optimizer})
    groups = build_optimizer(network, criterion, config).param_groups
    found = [id(weight) for group in groups for weight in group["params"]]
    expected = [id(weight) for module in (network, criterion) for weight in module.parameters()]
    assert sorted(found) == sorted(expected)
    assert optimizer == "adamw" or found == expected
