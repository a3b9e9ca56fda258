"""A comparison measures every arm on the same people and pairs them person by person."""

import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from pipeline.coco.read_people import read_people
from pipeline.config import validate_config
from pipeline.errors import ConfigError
from pipeline.evaluation.comparison import MEAN_POSE, TEACHER
from pipeline.evaluation.inference_cost import measure_costs
from pipeline.models import build_network
from pipeline.runs.checkpoints import describe_network, save_weights
from pipeline.runs.run_folder import RunFolder
from pipeline.settings import PeopleSettings
from stages.commands.evaluation_tables import print_comparison
from stages.compare import Comparison, compare
from stages.settings.evaluation import CompareConfig
from tests.support.drawn_people import DrawnPeople


def save_network(path: Path, drawn: DrawnPeople, architecture: str, seed: int) -> Path:
    """Leave an untrained network where a run would leave its best weights."""
    skeleton = read_people(drawn.annotations, None, PeopleSettings()).skeleton
    torch.manual_seed(seed)
    network = build_network(architecture, skeleton.num_keypoints)
    info = describe_network(
        network,
        skeleton,
        padding=1.25,
        seed=seed,
        score_rule="one",
        heatmap_frame="half-pixel" if architecture.startswith("tokenpose") else None,
    )
    save_weights(path, network, info)
    return path


@pytest.fixture(scope="module")
def runs(drawn: DrawnPeople, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp(f"run{seed}") for seed in range(4)]
    for seed, folder in enumerate(folders):
        save_network(RunFolder(folder).best_weights, drawn, "distilpose-xs", seed)
    return folders


@pytest.fixture(scope="module")
def comparison(
    drawn: DrawnPeople, runs: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, dict[str, object]]:
    folder = tmp_path_factory.mktemp("compared")
    config = CompareConfig(
        annotations=drawn.annotations,
        images=drawn.images,
        arms=(("a", runs[0]), ("b", runs[1]), ("a", runs[2]), ("b", runs[3])),
        teacher=save_network(folder / "teacher.safetensors", drawn, "tokenpose-xs", 9),
        mean_pose=drawn.annotations,
        output=folder / "table.json",
    )
    with pytest.MonkeyPatch.context() as patch:
        few = functools.partial(measure_costs, rounds={1: 3, 64: 1})
        patch.setattr("pipeline.evaluation.comparison.measure_costs", few)
        patch.setattr("pipeline.evaluation.inference_cost.peak_bytes_of_onnx", lambda *_: None)
        found = compare(config)
    return found, json.loads((folder / "table.json").read_text())


def test_the_baselines_come_first_and_every_seed_is_an_arm(
    comparison: tuple[Comparison, dict[str, object]],
) -> None:
    found, _ = comparison
    assert [arm.name for arm in found.arms] == [MEAN_POSE, TEACHER, "a", "b", "a", "b"]
    assert [arm.cost is None for arm in found.arms] == [True] + 5 * [False]


def test_the_difference_is_paired_by_person_and_averaged_over_seeds(
    comparison: tuple[Comparison, dict[str, object]],
) -> None:
    found, _ = comparison
    oks = {
        name: np.mean([arm.figures.localisation.oks for arm in found.arms if arm.name == name], 0)
        for name in "ab"
    }
    (difference,) = found.differences
    assert (difference.one, difference.other) == ("a", "b")
    assert difference.difference.mean == pytest.approx((oks["a"] - oks["b"]).mean())
    assert difference.difference.low <= difference.difference.mean <= difference.difference.high


def test_the_costs_are_those_of_the_networks(
    comparison: tuple[Comparison, dict[str, object]],
) -> None:
    student = next(arm for arm in comparison[0].arms if arm.name == "a")
    assert student.cost is not None
    assert student.cost.num_parameters == 840_981
    assert student.cost.num_multiply_adds == 61_762_176 + 4_326_400
    assert 0 < student.cost.batch_1.minimum <= student.cost.batch_1.median
    assert student.cost.batch_1.median < student.cost.batch_64.median


def test_arms_of_one_architecture_share_its_cost(
    comparison: tuple[Comparison, dict[str, object]],
) -> None:
    students = [arm for arm in comparison[0].arms if arm.name in "ab"]
    assert len({id(arm.cost) for arm in students}) == 1


def test_the_file_holds_the_figures_of_every_arm(
    comparison: tuple[Comparison, dict[str, object]],
) -> None:
    found, written = comparison
    arms = written["arms"]
    assert isinstance(arms, list)
    assert [arm["mean_oks"] for arm in arms] == [arm.figures.mean_oks for arm in found.arms]
    assert {"own_score", "score_one", "mean_oks", "cost", "name"} <= set(arms[0])
    assert set(arms[1]["cost"]["ms_batch_64"]) == {"minimum", "median"}


def test_the_table_has_a_row_per_arm_and_fits_eighty_columns(
    comparison: tuple[Comparison, dict[str, object]],
) -> None:
    found, _ = comparison
    console = Console(width=80, record=True, file=io.StringIO())
    print_comparison(console, found.arms, found.differences, found.num_people)
    text = console.export_text()
    lines = [line.strip() for line in text.splitlines()]
    for name in (MEAN_POSE, TEACHER, "a", "b"):
        tables = 1 if name == MEAN_POSE else 2  # figures, and for networks their cost
        assert sum(line.startswith(f"{name} ") for line in lines) == tables
    assert "…" not in text
    assert "mean OKS, a minus b:" in text


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ((), "nothing to compare is given; give --arm NAME=RUN_FOLDER"),
        ((("a", "x"), ("a", "y"), ("b", "z")), "arms need as many run folders each"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(
    arms: tuple[tuple[str, str], ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_config(CompareConfig, {"annotations": "a", "images": "b", "arms": arms})
