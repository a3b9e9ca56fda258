"""The table of an evaluation can be read at 80 columns, where no terminal says its width."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from pipeline.coco.poses import ScoreRule
from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES
from pipeline.evaluation.coco_evaluation import CocoFigures
from pipeline.evaluation.localisation import Localisation
from pipeline.evaluation.report import ComparisonRow, EvaluationReport
from stages.commands.evaluation_tables import print_report

FIGURES = (0.4431, 0.7352, 0.4573, 0.4424, None, 0.4866, 0.7457, 0.4898, 0.4739, 0.5052)


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    own = CocoFigures(*FIGURES)
    measured = np.linspace(0.5, 0.9, 17)
    return EvaluationReport(
        row=ComparisonRow(own, own, Localisation(measured, measured, measured[::-1].copy())),
        keypoint_names=COCO_KEYPOINT_NAMES,
        num_images=5000,
        num_people=10777,
        num_poses=104125,
        score_rule=ScoreRule(threshold=0.2),
        evaluated={
            "source": "student",
            "weights": "/data/experiments/distilled/checkpoints/best.safetensors",
            "architecture": "distilpose-s",
            "epoch": 300,
            "store_fingerprint": "0123456789abcdef" * 4,
            "store_content": "fedcba9876543210" * 4,
        },
    )


@pytest.mark.parametrize("width", [80, 100])
def test_no_figure_is_cut_off(report: EvaluationReport, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    print_report(console, report, ("a note of some length: " + "so it goes, " * 9,))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    for label in (" own  ", " 1  "):
        (line,) = (line for line in lines if line.startswith(label))
        assert re.findall(r"0\.\d{3}|-(?= )", line) == [f"{x:.3f}" if x else "-" for x in FIGURES]
    shown = "".join("".join(lines).split())
    for text in (*COCO_KEYPOINT_NAMES, "best.safetensors", "0123456789ab", "fedcba987654"):
        assert text in shown
