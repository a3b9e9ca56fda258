"""Warnings of schedules under which a training can hardly learn."""

import pytest

from pipeline.training.schedule_warnings import warn_of_schedule, warn_of_validation
from pipeline.training.settings import OptimisationConfig


@pytest.mark.parametrize(
    ("settings", "num_steps", "expected"),
    [
        (
            {"warmup_steps": 101},
            1000,
            "the warm-up takes 101 of 1000 steps, more than a tenth of the training; set "
            "optimisation.warmup_steps=100 or train for more --epochs",
        ),
        (
            {"warmup_steps": 500},
            1,
            "the learning rate never leaves its warm-up of 500 steps, as the training has 1: it "
            "reaches 2e-06 of 0.001; set optimisation.warmup_steps=1 or train for more --epochs",
        ),
        (
            {"warmup_steps": 0, "schedule": "cosine", "min_learning_rate": 1e-3},
            1000,
            "the learning rate never leaves its floor, optimisation.min_learning_rate, 0.001; give "
            "a higher --learning-rate",
        ),
    ],
    ids=["long", "endless", "floor"],
)
def test_a_schedule_that_cannot_learn_is_named_with_its_way_out(
    settings: dict[str, object], num_steps: int, expected: str
) -> None:
    assert list(warn_of_schedule(OptimisationConfig.model_validate(settings), num_steps)) == [
        expected
    ]


@pytest.mark.parametrize("settings", [{"warmup_steps": 100}, {"warmup_steps": 0}])
def test_a_warm_up_of_a_tenth_is_not_warned_of(settings: dict[str, object]) -> None:
    assert not list(warn_of_schedule(OptimisationConfig.model_validate(settings), 1000, 999))


def test_distilled_terms_that_never_reach_their_weights_are_told() -> None:
    (line,) = warn_of_schedule(OptimisationConfig(warmup_steps=0), 1000, 1000)
    assert "loss.distillation_warmup_steps is 1000" in line
    assert line.endswith("set it to 100 or less")


def test_a_training_that_is_hardly_validated_is_told() -> None:
    assert not list(warn_of_validation(True, epochs=10, evaluate_every_epochs=10))
    (rare,) = warn_of_validation(True, epochs=9, evaluate_every_epochs=10)
    assert rare.startswith("the student is validated once, at the end")
    assert rare.endswith("set evaluate_every_epochs=1")
    (never,) = warn_of_validation(False, epochs=10, evaluate_every_epochs=1)
    assert never.endswith("give --val-annotations")
