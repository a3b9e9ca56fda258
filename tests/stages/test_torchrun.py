"""The real command under torchrun: the losses of one process, and the end when one is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.runs.checkpoints import read_place
from pipeline.runs.run_folder import RunFolder

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def start(size: int, run_folder: Path, *words: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-P", "-m"]
    if size > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(size), "-m"]
    return subprocess.Popen(
        [*launcher, "cli", "train-student", "--run-folder", str(run_folder), *words],
        cwd=run_folder.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def settings(drawn: Any, store: Path, epochs: int) -> list[str]:
    return [
        *("--store", str(store), "--images", str(drawn.images), "--device", "cpu"),
        *("--val-annotations", str(drawn.annotations), "--student", "distilpose-xxs"),
        *("--batch-size", "5", "--workers", "1", "--threads", "1", "--epochs", str(epochs)),
        *("--set", "evaluate_every_epochs=1", "--set", "optimisation.warmup_steps=2"),
    ]


def losses(run_folder: Path) -> list[float]:
    lines = RunFolder(run_folder).read_metrics()
    return [float(str(line["loss"])) for line in lines if line["event"] == "epoch"]


def test_two_processes_have_the_losses_of_one(drawn: Any, store: Path, tmp_path: Path) -> None:
    for size in (1, 2):
        process = start(size, tmp_path / str(size), *settings(drawn, store, 2))
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert out.count("weights in") == 1
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-5)
    one, two = (RunFolder(tmp_path / name).read_metrics() for name in ("1", "2"))
    assert [line.keys() for line in one] == [line.keys() for line in two]


def test_a_killed_worker_ends_all_with_one_line_and_three_go_on(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    process = start(2, run.root, *settings(drawn, store, 400), "--checkpoint-minutes", "0.001")
    while not run.training_state.is_file():
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(second_worker(process.pid), signal.SIGKILL)
    _, err = process.communicate()
    lines = [line for line in err.splitlines() if line.startswith("distil: ")]
    assert len(lines) == 1, err
    assert "another process of this training has ended" in lines[0]
    done = read_place(run.training_state)
    goes_on = start(3, run.root, "--resume", "--epochs", str(done.epoch + 1))
    _, err = goes_on.communicate()
    assert goes_on.returncode == 0, err
    assert read_place(run.training_state).epoch == done.epoch + 1


def second_worker(launcher: int) -> int:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    by_rank = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        by_rank.update({part: int(child) for part in environment if part.startswith(b"RANK=")})
    return by_rank[b"RANK=1"]
