"""The curves of a sweep stand below its whole question."""

from pathlib import Path

import cv2
import pytest

from pipeline.ablation.plot import draw_curves
from pipeline.ablation.table import RunRow, SweepTable

WHITE_EDGE = 4
"""Columns of pixels that stay free on both sides."""


@pytest.mark.parametrize("letters", [40, 400])
def test_the_question_is_not_cut_off(letters: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = RunRow.__new__(RunRow)
    object.__setattr__(run, "arm", "labels")
    object.__setattr__(run, "curve", [(1000, 0.2), (2000, 0.4)])
    question = ("What moves most among the wide words " * 20)[:letters]
    assert draw_curves(SweepTable(question, (), (), (run,)), tmp_path / "c.png")
    drawn = cv2.imread(str(tmp_path / "c.png"))
    assert drawn is not None
    title = drawn[: 18 * -(-letters // 72)]
    assert (title < 128).any()
    assert (title[:, :WHITE_EDGE] == 255).all()
    assert (title[:, -WHITE_EDGE:] == 255).all()
