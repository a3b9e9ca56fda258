"""Laws of a training in several processes: that of one process, but for rounding."""

import functools
import os
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.errors import DistilError
from pipeline.progress import NoProgress
from pipeline.runs.run_folder import RunFolder
from pipeline.training.distributed import Processes, open_processes
from pipeline.training.global_batch_norm import GlobalBatchNorm
from pipeline.training.loop import fit
from tests.support.clean_process import exit_code, start_process
from tests.support.recorded_progress import RecordedProgress
from tests.support.tiny_training import order, tiny_training


def train(rank: int, size: int, port: int, folder: Path, options: dict[str, Any]) -> None:
    """Be one of the processes of a training, as torchrun would start it."""
    resume, dies_at = options.pop("resume", False), options.pop("dies_at", None)
    os.environ.update(
        {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        }
    )

    def before_batch(step: int) -> None:
        if step == dies_at and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        with open_processes(torch.device("cpu")) as processes:
            progress = RecordedProgress()
            run_folder = RunFolder(folder, is_written=processes.is_first)
            training = tiny_training(processes, before_batch, **options)
            fit(training, run_folder, progress, resume=resume)
            assert bool(progress.updates) == processes.is_first
    except DistilError as error:  # what the command would print
        (folder / f"error-{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        raise


def run(folder: Path, size: int, **options: Any) -> list[int]:
    """Train in so many processes, and return their exit codes."""
    folder.mkdir(exist_ok=True)
    if size == 1:
        fit(tiny_training(**options), RunFolder(folder), NoProgress())
        return [0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    works = [
        functools.partial(train, rank, size, port, folder, dict(options)) for rank in range(size)
    ]
    return [exit_code(process) for process in [start_process(work) for work in works]]


def assert_close(one: Path, other: Path) -> None:
    """Compare metrics and weights of two run folders, to 1e-5."""
    a, b = RunFolder(one), RunFolder(other)
    for x, y in zip(a.read_metrics(), b.read_metrics(), strict=True):
        assert x.keys() == y.keys()
        for name in x:
            close = pytest.approx(y[name], rel=1e-5) if name in ("loss", "error") else y[name]
            assert x[name] == close, name
    ours, theirs = load_file(a.training_state), load_file(b.training_state)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("size", [2, 3])
def test_each_row_of_every_batch_belongs_to_one_process(size: int) -> None:
    everyone = [Processes(rank, size) for rank in range(size)]
    for epoch in range(2):
        for batch in order().batches(epoch):
            shares = [processes.own_views(batch) for processes in everyone]
            pairs = [pair for share in shares for pair in zip(*map(list, share), strict=True)]
            assert sorted(pairs) == sorted(zip(*map(list, batch), strict=True))
            assert max(map(len, (s.views for s in shares))) <= -(-len(batch.views) // size)
    rows = np.concatenate([processes.own_rows(11) for processes in everyone])
    assert sorted(rows) == list(range(11))


def test_one_two_and_three_processes_have_the_same_losses_and_weights(tmp_path: Path) -> None:
    """Of batches of 7, which neither 2 nor 3 processes can share evenly."""
    for size in (1, 2, 3):
        assert run(tmp_path / str(size), size) == [0] * size
    assert_close(tmp_path / "1", tmp_path / "2")
    assert_close(tmp_path / "1", tmp_path / "3")


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    assert run(tmp_path / "whole", 1) == [0]
    assert run(tmp_path / "grown", 2, epochs=1) == [0, 0]
    assert run(tmp_path / "grown", 3, resume=True) == [0, 0, 0]
    assert_close(tmp_path / "whole", tmp_path / "grown")


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_one_line(
    tmp_path: Path,
) -> None:
    codes = run(tmp_path / "run", 3, dies_at=6, checkpoint_seconds=0.0)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] == codes[2] == 1
    (said,) = [file.read_text() for file in (tmp_path / "run").glob("error-*.txt")]
    assert said.startswith("ClusterError: another process of this training has ended")
    assert run(tmp_path / "whole", 1) == [0]
    assert run(tmp_path / "run", 2, resume=True) == [0, 0]
    assert_close(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_without_synchronisation_batches_are_normalised_apart(tmp_path: Path) -> None:
    assert run(tmp_path / "one", 1) == [0]
    assert run(tmp_path / "two", 2, sync_batch_norm=False) == [0, 0]
    one, two = (RunFolder(tmp_path / name).read_metrics() for name in ("one", "two"))
    assert one[0]["loss"] != pytest.approx(two[0]["loss"], rel=1e-5)


def gradients(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    layer(x).pow(3).sum().backward()
    assert x.grad is not None
    return [x.grad, *(weight.grad for weight in layer.parameters() if weight.grad is not None)]


def test_global_batch_norm_of_one_process_is_torchs(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        torch.manual_seed(0)
        reference = nn.BatchNorm2d(3, momentum=0.2).double()
        nn.init.uniform_(reference.weight)
        x = torch.randn(4, 3, 5, 6).double() * 3 + 100
        plain = nn.BatchNorm2d(3, momentum=0.2).double()
        plain.load_state_dict(reference.state_dict())
        ours = GlobalBatchNorm(plain)
        for mine, theirs in zip(gradients(ours, x), gradients(reference, x), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.eval()(x), reference.eval()(x), rtol=1e-5, atol=1e-5)
    finally:
        torch.distributed.destroy_process_group()
