"""A plan with a probe says what the run will take, every file counted, and writes nothing."""

from typing import Any

import pytest

from pipeline.caching import estimate
from pipeline.errors import ConfigError, TeacherError
from stages.cache_teacher import cache_teacher
from stages.plan_cache import plan_cache


@pytest.mark.parametrize("profile", ["default", "lossless-float16"])
def test_a_probe_of_everybody_predicts_the_bytes_of_the_whole_store(
    inputs: Any, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """Augmented views, outputs, plan, manifest and metadata alike."""
    monkeypatch.setattr(estimate, "planned_rows_per_shard", lambda *_: 2)
    config = inputs.config(profile=profile)
    before = inputs.digests(inputs.folder)
    cost = plan_cache(config, with_probe=True)
    assert inputs.digests(inputs.folder) == before
    result = cache_teacher(config)
    assert cost.num_views == result.num_people * result.num_views
    assert cost.num_bytes == pytest.approx(result.num_bytes, rel=0.005)
    assert cost.seconds is not None
    assert cost.seconds > 0


@pytest.mark.parametrize("profile", sorted(estimate.TYPICAL_BITS_PER_CELL))
def test_a_guess_counts_every_file_but_knows_no_time(inputs: Any, profile: str) -> None:
    cost = plan_cache(inputs.config(profile=profile), with_probe=False)
    heatmaps = cost.num_views * 17 * 64 * 48 * estimate.TYPICAL_BITS_PER_CELL[profile] / 8
    assert heatmaps + cost.num_views * 17 * 16 < cost.num_bytes < heatmaps + 400_000
    assert cost.seconds is None


def test_a_teacher_that_stage_one_would_refuse_is_refused_by_the_plan(inputs: Any) -> None:
    config = inputs.config(teacher_settings__heatmap_frame="msra")
    with pytest.raises(TeacherError, match=r"use --heatmap-frame half-pixel or udp"):
        plan_cache(config, with_probe=True)


def test_the_plan_says_after_how_many_students_the_store_has_paid_for_itself(inputs: Any) -> None:
    """By measured times with a probe, by numbers of views without one."""
    training = {"training__student": "distilpose-xxs", "training__epochs": 2}
    said: list[str] = []
    estimate = plan_cache(inputs.config(**training), say=said.append)
    (line,) = [line for line in said if line.startswith("break-even")]
    assert estimate.seconds is not None
    assert estimate.teacher_seconds is not None
    in_loop = 2 * estimate.dimensions.num_instances * estimate.teacher_seconds
    students = estimate.break_even(2)
    assert (students - 1) * in_loop < estimate.seconds <= students * in_loop
    assert line.startswith("break-even: 2 epochs of distilpose-xxs take ")
    assert f"paid for itself after {students} student" in line

    said.clear()
    guess = plan_cache(inputs.config(**training), with_probe=False, say=said.append)
    (line,) = [line for line in said if line.startswith("break-even")]
    assert guess.break_even(2) == 2  # 3 views a person, 2 of them in each training
    assert "33 views for the store and 22 in 2 epochs" in line
    assert line.endswith("after 2 students")
    with pytest.raises(ConfigError, match="unknown architecture 'nobody'"):
        plan_cache(inputs.config(training__student="nobody"))
