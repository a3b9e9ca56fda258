"""The script for a lent GPU runs on a CPU at small sizes, and says that it has no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_script_for_a_gpu_prints_each_of_its_figures() -> None:
    run = subprocess.run(
        [sys.executable, "docs/measure_gpu.py", "--small", "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("no GPU: the figures are those of this CPU")
    for beginning, count in (
        ("stage one, tokenpose-xs", 2),
        ("loader, ", 2),
        ("held in ", 2),
        ("step of distilpose-xxs", 2),
        ("4 steps of distilpose-xxs", 1),
    ):
        assert sum(line.startswith(beginning) for line in lines) == count, run.stdout
