"""`distil benchmark train`, `loader` and `inference` at tiny sizes: what they print adds up."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from pipeline.benchmarks import loading_speed, processes
from pipeline.benchmarks.figures import Bounded
from pipeline.benchmarks.steps import (
    FIVE_TERMS,
    drawn_batch,
    learner_of,
    student_and_info,
    terms_for,
)
from pipeline.errors import ConfigError
from pipeline.models.token_encoder import TokenShape
from pipeline.training.losses import StudentCriterion
from stages.benchmark_inference import benchmark_inference
from stages.benchmark_loader import benchmark_loader
from stages.benchmark_train import benchmark_train
from stages.cache_teacher import cache_teacher
from stages.commands.limit_tables import (
    print_bounded,
    print_inference_figures,
    print_loader_figures,
    print_train_figures,
)
from stages.settings.benchmark import (
    BenchmarkInferenceConfig,
    BenchmarkLoaderConfig,
    BenchmarkTrainConfig,
)
from tests.support.clean_process import CONTEXT
from tests.support.recorded_progress import RecordedProgress

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _quick_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh processes that need not load torch first."""
    monkeypatch.setattr(processes, "FRESH", CONTEXT)


def printed(show: Callable[[Console, Any], None], figures: Any) -> str:
    console = Console(file=io.StringIO(), width=110)
    show(console, figures)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_figure_holds_on_its_side_of_the_limit() -> None:
    assert Bounded("a", 1.05, 1.05).holds
    assert Bounded("a", 1.06, 1.05).holds is False
    assert Bounded("a", 1.8, 1.8, is_largest=False).holds
    assert Bounded("a", 1.7, 1.8, is_largest=False).holds is False
    assert Bounded("a", 1.7, None).holds is None
    rows = printed(print_bounded, [Bounded("up", 2, 1), Bounded("down", 2, 1, is_largest=False)])
    assert ["up", "2.000", "<=", "1.000", "no"] in [line.split() for line in rows.splitlines()]
    assert ["down", "2.000", ">=", "1.000", "yes"] in [line.split() for line in rows.splitlines()]


def test_a_measured_step_computes_every_term_of_a_learnable_batch() -> None:
    """The labels and the teacher's heatmaps of the batch are of the same points."""
    network, _ = student_and_info("distilpose-xxs")
    shape = network.token_shape
    batch = drawn_batch(network, 3, shape, (64, 48))
    learner = learner_of("distilpose-xxs", FIVE_TERMS, 3, CPU, "float32", shape)
    losses, _, _ = learner.step(batch, 0)
    assert set(losses.terms) == set(FIVE_TERMS.all_terms()) & set(FIVE_TERMS.terms)
    assert len(losses.terms) == 5
    assert all(float(term) > 0 for term in losses.terms.values())
    assert isinstance(learner.criterion, StudentCriterion)
    assert batch.teacher is not None
    assert batch.teacher.heatmaps is not None
    highest = batch.teacher.heatmaps.flatten(2).argmax(-1)
    cells = torch.stack([highest % 48, highest // 48], dim=-1)
    expected = (batch.keypoints + 0.5) / 2 - 0.5  # half-pixel, 128x96 to 64x48
    assert (cells - expected).abs().max() <= 0.51


def test_the_training_benchmark_compares_each_step_with_its_limit(tmp_path: Path) -> None:
    config = BenchmarkTrainConfig(
        students=("distilpose-xxs",),
        teacher="tokenpose-xs",
        batch_size=2,
        loop_batch_size=2,
        shared_batch_size=4,
        rounds=1,
        device="cpu",
        output=tmp_path,
    )
    progress = RecordedProgress()
    result = benchmark_train(config, progress)
    assert progress.updates[-1] == (3, 3)
    figures, loop = result.figures, result.figures.in_loop
    (step,) = figures.distilled
    assert step.ratio == pytest.approx(step.distilled_seconds / step.plain_seconds)
    assert loop.ratio == pytest.approx(loop.loop_seconds / loop.step_seconds)
    assert loop.limit == pytest.approx(1 + loop.teacher_seconds / loop.step_seconds)
    assert figures.shared.alone_seconds > 0
    limits = [(figure.limit, figure.is_largest) for figure in figures.bounded]
    assert limits == [(1.05, True), (0.95 * loop.limit, False), (1.8, False), (1.8, False)]
    assert loop.terms == tuple(FIVE_TERMS.terms)
    assert loop.loop_peak_mb > loop.step_peak_mb > 0
    assert result.written is not None
    document = json.loads(result.written.read_text())
    assert [entry["value"] for entry in document["limits"]] == [f.value for f in figures.bounded]
    text = printed(print_train_figures, figures)
    for figure in figures.bounded:
        assert f"{figure.value:.3f}" in text


def test_the_loader_benchmark_trains_from_crops_and_multiplies_the_people(
    inputs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading_speed, "LOADED_PEOPLE", 8)
    cache_teacher(inputs.config(crops=True))
    config = BenchmarkLoaderConfig(
        store=inputs.store,
        student="distilpose-xxs",
        batch_size=4,
        steps=2,
        people=(4, 12),
        device="cpu",
        output=tmp_path / "out",
    )
    result = benchmark_loader(config)
    figures = result.figures
    assert [cost.num_people for cost in figures.epochs] == [4, 12]
    for cost in figures.epochs:
        people_seconds = cost.num_people * cost.seconds_per_person
        expected = cost.open_seconds + cost.first_seconds + people_seconds
        assert cost.epoch_seconds == pytest.approx(expected)
        assert cost.seconds_per_person > 0
        assert cost.worker_mb > 0
    assert 0 < figures.busy.busy_share <= 1
    assert figures.busy.step_seconds > 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["loader.json"]
    text = printed(print_loader_figures, figures)
    assert [line.split()[0] for line in text.splitlines() if line.strip().startswith(("4", "12"))]
    assert f"{figures.busy.busy_share:.3f}" in text


def test_the_busy_share_on_free_cores_follows_from_both_times() -> None:
    busy = loading_speed.BusyDevice(2, 32, 0.5, step_seconds=3e-3, load_seconds=8e-3)
    assert busy.share_on_free_cores == pytest.approx(0.75)
    busy = loading_speed.BusyDevice(2, 32, 0.5, step_seconds=5e-3, load_seconds=8e-3)
    assert busy.share_on_free_cores == 1


def test_a_store_without_crops_is_refused(whole_store: Path, tmp_path: Path) -> None:
    config = BenchmarkLoaderConfig(store=whole_store, device="cpu", output=tmp_path)
    with pytest.raises(ConfigError, match=r"must hold crops and augmented views; write one"):
        benchmark_loader(config)


def test_the_inference_benchmark_prints_both_ratios(tmp_path: Path) -> None:
    config = BenchmarkInferenceConfig(
        student="distilpose-xxs", teacher="tokenpose-xs", rounds=1, output=tmp_path
    )
    figures = benchmark_inference(config).figures
    products = figures.teacher_cost.num_multiply_adds / figures.student_cost.num_multiply_adds
    first, at_1, at_64 = (figure.value for figure in figures.bounded)
    assert first == products > 1
    student, teacher = figures.student_cost, figures.teacher_cost
    assert at_1 == teacher.batch_1.minimum / student.batch_1.minimum
    assert at_64 == teacher.batch_64.minimum / student.batch_64.minimum
    text = printed(print_inference_figures, figures)
    assert f"{products:.3f}" in text
    assert f"{teacher.batch_64.minimum / 64:.1f}" in text
    assert (tmp_path / "inference.json").is_file()


def test_a_teacher_of_other_tokens_is_compared_by_the_three_terms_that_read_none() -> None:
    three = ["regression", "simulated_heatmap", "confidence"]
    assert list(terms_for(TokenShape(8, (4, 3)), TokenShape(9, (4, 3))).terms) == three
    assert list(terms_for(TokenShape(8, (4, 3)), None).terms) == three
    assert list(terms_for(None, None).terms) == three


def test_tokens_of_a_drawn_batch_have_the_given_shape() -> None:
    network, _ = student_and_info("distilpose-xxs")
    teacher = drawn_batch(network, 2, TokenShape(8, (4, 3)), (64, 48)).teacher
    assert teacher is not None
    assert teacher.keypoint_tokens is not None
    assert teacher.visual_tokens is not None
    assert teacher.keypoint_tokens.shape == (2, 17, 8)
    assert teacher.visual_tokens.shape == (2, 12, 8)
    assert np.isfinite(teacher.visual_tokens.numpy()).all()
